"""One run that is killed at twenty moments: `python tests/faults/kills.py FOLDER [EVERY]`.

EVERY=2 takes every other one. Each process is a fork of this one, which has imported everything
and computed nothing, kills itself by SIGKILL at its moment, and the next goes on. The last line of
the output says, as JSON, by which signal each ended, with what status the last, and where it should
be that of a run never killed.

What may break are files and the order in which they are written, so the step is a stand-in;
`tests/training/test_resume.py` kills a process that trains.
"""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import sys
import threading

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (1, 2)]

from miniature import stand_in_step, write_config, write_dataset  # noqa: E402

from stlm_jax.main import main  # noqa: E402

STEPS = 40
OPTIONS = (
    f"--config.train.steps={STEPS}", "--config.checkpoint.every_steps=2",
    "--config.image_size=32", "--config.teacher.checkpoint=none", "--config.log.every_steps=1",
)  # fmt: skip

# Where: a function, at which of its calls, and how many seconds after it began (None: at once).
TRAIN, TRAINER = "stlm_jax.training.train", "stlm_jax.training.trainer"
CHECKPOINTS = "stlm_jax.weights.checkpoint:Checkpoints"
MOMENTS = (
    (f"{TRAIN}:Trainer", 1, None),
    (f"{TRAIN}:write_run", 1, None),
    ("stlm_jax.workdir:write_json", 1, None),  # config.json is there, run.json is not
    (f"{TRAINER}:compile_apart", 1, 0.05),
    ("stlm_jax.training.pack:save", 1, None),
    (f"{CHECKPOINTS}.save", 1, 0.002),
    (f"{CHECKPOINTS}.save", 1, 0.01),
    (f"{CHECKPOINTS}.save", 1, 0.02),
    (f"{CHECKPOINTS}.save", 2, 0.005),
    (f"{CHECKPOINTS}.save", 2, 0.03),
    (f"{CHECKPOINTS}.save", 3, 0.015),
    (f"{CHECKPOINTS}.save", 3, 0.04),
    (f"{CHECKPOINTS}.restore", 1, 0.01),
    ("stlm_jax.runtime.metric_writer:MetricWriter.write", 2, None),
    ("stlm_jax.runtime.metric_writer:MetricWriter.write", 3, 0.0),
    ("stlm_jax.evaluation.calibrate:calibrate", 1, None),
    ("stlm_jax.evaluation.calibrate:store", 1, None),
    ("stlm_jax.report.write:write_panels", 1, None),
    ("stlm_jax.report.write:write_json", 1, None),
    ("stlm_jax.report.page:open_atomically", 1, None),
)
MODULES = {where.partition(":")[0] for where, _, _ in MOMENTS}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str, call: int, seconds: float | None) -> None:
    """Has this process killed at a moment."""
    module, _, path = where.partition(":")
    owner = importlib.import_module(module)
    *above, name = path.split(".")
    for part in above:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), []

    def deadly(*arguments, **named):
        calls.append(1)
        if len(calls) == call:
            if seconds is None:
                kill()
            threading.Timer(seconds, kill).start()
        return function(*arguments, **named)

    setattr(owner, name, deadly)


def in_fork(folder: pathlib.Path, workdir: str, moment: tuple | None) -> int:
    """How a process ended that trained and evaluated; negative: by that signal."""
    child = os.fork()
    if not child:
        status = 70
        with contextlib.suppress(BaseException), open(folder / "log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if moment:
                arm(*moment)
            config = folder / "tiny.py"
            status = main(["main", f"--config={config}", f"--workdir={folder / workdir}", *OPTIONS])
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_all(folder: pathlib.Path, every: int = 1) -> dict:
    """Kills one run at its moments and leaves another, `whole`, alone."""
    for name in ("tensorboardX", "sklearn.metrics", "matplotlib.pyplot", *MODULES):
        importlib.import_module(name)  # once, not in every process
    importlib.import_module(TRAINER).train_step = stand_in_step
    write_dataset(folder / "data")
    write_config(folder / "tiny.py", folder / "data", ["disc"])
    ends = {"whole": in_fork(folder, "whole", None)}
    ends["killed"] = [in_fork(folder, "killed", moment) for moment in MOMENTS[::every]]
    ends["last"] = in_fork(folder, "killed", None)
    return ends


if __name__ == "__main__":
    print(json.dumps(run_all(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))))
