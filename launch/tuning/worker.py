"""Trains the batch of a folder and measures each of its runs: `python -m launch.tuning.worker DIR`.

A process of its own, so that whatever ends it leaves the search to say so. It ends when the search
does: its standard input is then closed. The test split is not evaluated.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from launch.tuning.batches import read_batch
from launch.tuning.folders import BUSY, RESULT, base_of
from launch.tuning.space import of_trials
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.runtime.files import read_json, write_json
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.progress import say

_STOPPED = "stopped"
_gone = threading.Event()  # the search


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the batch that `argv` (the program's name first) names; the exit status."""
    _, folder, *flags = sys.argv if argv is None else argv
    if flags == ["--sizes"]:
        return exit_status(lambda: say(json.dumps(_sizes(Path(folder)))), _STOPPED)
    threading.Thread(target=_end_with_search, daemon=True).start()
    return exit_status(lambda: _run(Path(folder)), _STOPPED)


def _end_with_search() -> None:
    os.read(sys.__stdin__.fileno(), 1)  # type: ignore[union-attr]  # returns when it is closed
    _gone.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _go_on() -> None:
    """Ends what was asked to end while the last steps of a training were computed."""
    if _gone.is_set():
        raise KeyboardInterrupt


def _run(folder: Path) -> None:
    # Here, not above: these import jax, and who asks for sizes chooses the CPU first.
    from stlm_jax.runtime.process import prepare
    from stlm_jax.workdir import COMPILATION_CACHE

    search = folder.parent.parent
    config = of_trials(base_of(search), read_batch(folder).settings)
    prepare(config.precision, search / COMPILATION_CACHE)
    with only_here(folder / BUSY, "trains this batch: wait for its end"):
        _train(config, folder)
        _measure(config, folder)


def _train(config: ml_collections.ConfigDict, folder: Path) -> None:
    """Trains what is not finished; of a training that diverged, its folder says so at the end."""
    from stlm_jax.training.divergence import NotFiniteError
    from stlm_jax.training.members import runs_of
    from stlm_jax.training.train import train
    from stlm_jax.workdir import DIVERGED

    while True:
        try:
            train(config, folder, (sys.executable, *sys.argv))
            return
        except UserError as error:
            # A training that is alone, or the only one left, ends the whole with an error.
            if not isinstance(error.__cause__, NotFiniteError):
                raise
            (stopped,) = (
                run.workdir / category
                for run in runs_of(config, folder)
                for category in config.data.categories
                if str(error).startswith(f"{category} of {run.name}: ")
            )
            write_json(stopped / DIVERGED, {"reason": str(error.__cause__)})


def _measure(config: ml_collections.ConfigDict, folder: Path) -> None:
    """Writes `pseudo_validation.json` into the folder of each run that has none."""
    from stlm_jax.inference.predictor import Predictor
    from stlm_jax.training.members import runs_of

    waiting = [run for run in runs_of(config, folder) if not (run.workdir / RESULT).is_file()]
    predictor = Predictor(config)  # of any of them: they differ in no shape
    for run in waiting:
        _go_on()
        write_json(run.workdir / RESULT, _result(run.config, run.workdir, run.name, predictor))


def _result(
    config: ml_collections.ConfigDict, workdir: Path, name: str, predictor: Any
) -> dict[str, Any]:
    """What a run came to: the mean of each metric over the categories, and of each by itself."""
    from stlm_jax.data import depth
    from stlm_jax.evaluation.pseudo_validation import METRICS, measure
    from stlm_jax.metrics import MetricError
    from stlm_jax.workdir import DIVERGED

    found = {}
    for category in config.data.categories:
        folder = workdir / category
        if (folder / DIVERGED).is_file():
            reason = read_json(folder / DIVERGED)["reason"]
            return {"diverged": f"{category}: {reason}"}
        step = predictor.load(folder)
        resolved = depth.resolved(config, folder)
        try:
            measured = measure(resolved, predictor, category, f"measure {category} of {name}")
        except MetricError as error:
            return {"diverged": f"{category}: {error}"}
        found[category] = {"step": step, **measured}
    mean = {
        metric: sum(each["metrics"][metric] for each in found.values()) / len(found)
        for metric in METRICS
    }
    return {"metrics": mean, "categories": found}


def _sizes(workdir: Path) -> dict[str, Any]:
    """Steps of each category and the bytes of a run's checkpoints, from shapes alone."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # whose devices others need
    from stlm_jax.data import dataset
    from stlm_jax.models.build import build_stlm
    from stlm_jax.runtime.program_memory import bytes_of
    from stlm_jax.training.state import abstract_train_state
    from stlm_jax.training.train import total_steps

    config = base_of(workdir)
    dataset.prepare(config)
    steps = {
        category: total_steps(config, category, len(dataset.split_of(config, category, "train")))
        for category in config.data.categories
    }
    state = abstract_train_state(config, build_stlm(config))
    saved = bytes_of((state.student(), state.training()))
    return {"steps": steps, "bytes": saved * config.checkpoint.keep * len(steps)}


if __name__ == "__main__":
    end(main())
