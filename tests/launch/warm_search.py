"""Searches as forks of one process that has imported what they need, and so are their workers.

`python tests/launch/warm_search.py` reads a line a search, JSON of at which call it is killed while
it asks for a trial (0: never), a file for its output, one for its errors, and the arguments; it
answers by the exit status, negative where a signal ended it. What the tests are about is in what
order processes write and die, not how long Python takes to start.
"""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback
import types

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import search_evaluation  # noqa: E402
import search_worker  # noqa: E402

from launch.search import main  # noqa: E402
from launch.tuning import batches, ending, study  # noqa: E402

PROGRAMS = {"worker": search_worker.main, "evaluation": search_evaluation.main}


def end(program, *arguments):
    """Ends this process, a fork, with a program's status."""
    status = 1
    try:
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))
        status = program(*arguments) or 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def popen(command, **options):
    """`subprocess.Popen` of one of `PROGRAMS`, which a fork runs where it would start another."""
    name, *arguments = command

    def instead():
        os.closerange(3, 1024)  # what waits for another program to be started waits for one of them
        end(PROGRAMS[name], arguments)

    return subprocess.Popen(["true"], preexec_fn=instead, **options)


def run(command, **options):
    process = popen(command, **options)
    return types.SimpleNamespace(stdout=process.communicate()[0], returncode=process.returncode)


def kill_asking(call):
    plain, calls = study.Study._overrides, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    study.Study._overrides = killed


def search(killed_at, output, errors, *arguments):
    """The exit status of a search, by a fork."""
    child = os.fork()
    if not child:
        kill_asking(killed_at)
        for fd, path in enumerate((os.devnull, output, errors)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
        end(main, ["search", *arguments])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for module in ("optuna", "launch.tuning.picture", "launch.tuning.space"):
        importlib.import_module(module)
    forked = types.SimpleNamespace(**vars(subprocess) | {"Popen": popen, "run": run})
    batches.subprocess = ending.subprocess = forked
    batches.WORKER, ending.EVALUATE = ("worker",), ("evaluation",)
    for line in sys.stdin:
        print(search(*json.loads(line)), flush=True)
