"""Batches of trials: which there are, whose they are, and the process that trains one."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from launch.tuning.folders import (
    BATCH,
    BATCHES,
    BUSY,
    RESULT,
    claim,
    in_turn,
    read_json,
    run_name,
)
from launch.tuning.study import Study
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.progress import note

DEFAULT = "default"  # the run of a base that lies outside the space
WORKER = (sys.executable, "-m", "launch.tuning.worker")
_BAD_INPUT = 2


class Batch(NamedTuple):
    """Trials that are trained together.

    Attributes:
        folder: of their runs.
        settings: what each changes of the base, by its run's name.
        numbers: of the trials, by their run's name.
    """

    folder: Path
    settings: dict[str, dict[str, str]]
    numbers: dict[str, int]


def read_batch(folder: Path) -> Batch:
    """The batch of a folder."""
    content = read_json(folder / BATCH)
    return Batch(folder, content["settings"], content["trials"])


def all_batches(workdir: Path) -> list[Batch]:
    """Those that were put together, in order."""
    return [read_batch(path.parent) for path in sorted((workdir / BATCHES).glob(f"*/{BATCH}"))]


def next_batch(
    study: Study,
    workdir: Path,
    trials: int,
    size: int,
    with_default: bool,
    taken_over: str,
    stack: contextlib.ExitStack,
) -> Batch | None:
    """A batch to train, which is this process's while `stack` is open.

    First those whose search was killed, then one of new trials. None where none are left, but for
    those that other searches have. One process at a time is to be here.

    Args:
        study: of the search.
        workdir: of the search.
        trials: how many there are to be in all.
        size: trials of a new batch.
        with_default: whether the first batch trains the base, too.
        taken_over: a host whose batches are taken.
        stack: that the batch is released with.
    """
    running = set(study.running())
    for batch in all_batches(workdir):
        mine = set(batch.numbers.values())
        unfinished = mine & running or _missing(batch)
        if unfinished and claim(batch.folder, taken_over, stack):
            return batch
        running -= mine
    # What is left was asked for by a search that was killed before it had written the batch.
    loose = sorted(running)[:size]
    new = max(0, min(size - len(loose), trials - len(study.trials())))
    if not loose and not new:
        return None
    asked = study.ask(new, loose)
    first = min(asked)
    folder = workdir / BATCHES / f"{first:04}"
    if not claim(folder, taken_over, stack):
        raise UserError(f"{folder}: another search has it: start this one again")
    numbers = {run_name(number): number for number in asked}
    settings = {run_name(number): overrides for number, overrides in asked.items()}
    if with_default and first == 0:
        settings |= {DEFAULT: {}}
    write_json(folder / BATCH, {"trials": numbers, "settings": settings})
    return Batch(folder, settings, numbers)


def result_of(folder: Path) -> dict[str, Any] | None:
    """What a run came to, None before it has ended; `diverged` says why it was stopped."""
    path = folder / RESULT
    return read_json(path) if path.is_file() else None


def tell(study: Study, batch: Batch, metric: str) -> list[str]:
    """Tells the study of the trials that have ended; the names of runs that have not."""
    missing = _missing(batch)
    for name, number in batch.numbers.items():
        result = result_of(batch.folder / name)
        if result is None:
            continue
        facts = {"workdir": str(batch.folder / name)}
        if "diverged" in result:
            study.tell(number, None, {**facts, "diverged": result["diverged"]})
        else:
            study.tell(number, result["metrics"][metric], {**facts, **result["metrics"]})
    return missing


def _missing(batch: Batch) -> list[str]:
    return [name for name in batch.settings if result_of(batch.folder / name) is None]


def train(batch: Batch) -> None:
    """Trains a batch in a process of its own, and measures it there.

    A process of a killed search, which saves and ends once its search is gone, is waited for.
    """
    with in_turn(batch.folder / BUSY, "trains this batch for a search that was killed: it ends"):
        pass
    status = _run_worker(str(batch.folder))
    if status == 0:
        return
    first, *_, last = [*batch.numbers.values()] * 2
    what = f"the process that trained trials {first} to {last}"
    if status == _BAD_INPUT:
        raise UserError(f"{what} says what to mend, above; then run the same command again")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    raise UserError(f"{what} {how}; nothing that was saved is lost: run the same command again")


def sizes(workdir: Path) -> dict[str, Any]:
    """`steps` of each category, and `bytes` of a run's checkpoints."""
    output = subprocess.run(
        [*WORKER, str(workdir), "--sizes"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    if output.returncode:
        raise UserError("the base cannot be trained: what to mend is said above")
    return json.loads(output.stdout)


def _run_worker(*arguments: str) -> int:
    """The exit status of a worker, which ends when this process does, in whatever way."""
    # In a session of its own: Ctrl-C reaches this process alone, which has the worker save once.
    worker = subprocess.Popen([*WORKER, *arguments], stdin=subprocess.PIPE, start_new_session=True)
    with _ended(worker):
        return worker.wait()


@contextlib.contextmanager
def _ended(worker: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("stopping: what was trained is being saved")
        assert worker.stdin
        worker.stdin.close()  # by which it knows
        try:
            worker.wait()
        except KeyboardInterrupt:
            worker.kill()
            worker.wait()
        raise Interrupted("stopped; run the same command again to go on") from None
    finally:
        if worker.stdin:
            worker.stdin.close()
