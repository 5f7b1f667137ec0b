"""How far the trials of a study are, and what they cost, as their folders tell."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import digest
from stlm_jax.report.details_json import read_configuration
from stlm_jax.runtime.files import parsed_json, read_json
from stlm_jax.workdir import DETAILS, DIVERGED, RESULTS, TRAINING_METRICS


def is_done(folder: Path, config: ml_collections.ConfigDict) -> bool:
    """Whether a run was trained and evaluated as `config` says, to the end."""
    return read_configuration(folder / RESULTS / DETAILS) == digest(config)


def divergence(folder: Path, categories: Sequence[str]) -> str:
    """Why trainings of a run were stopped, in one line; empty where none was."""
    found = []
    for category in categories:
        path = folder / category / DIVERGED
        if path.is_file():
            try:
                why = read_json(path)["reason"]
            except (OSError, ValueError, KeyError, TypeError):
                why = "diverged"
            found.append(f"{category}: {why}")
    return "; ".join(found)


def is_settled(folder: Path, config: ml_collections.ConfigDict) -> bool:
    """Whether there is nothing left to do for a run: it is done, or all of it diverged."""
    categories = config.data.categories
    gone = all((folder / category / DIVERGED).is_file() for category in categories)
    return gone or is_done(folder, config)


def steps_done(folder: Path, categories: Sequence[str]) -> int:
    """Steps of a run's trainings, of all categories, that are logged."""
    return sum(_last_step(folder / category / TRAINING_METRICS) for category in categories)


def cost(folder: Path, config: ml_collections.ConfigDict) -> tuple[float, float, int]:
    """Of a run's trainings: seconds, images that the teacher was run for, and trials together.

    Of a program that trains several each has its share. Compiling, saving and evaluating are no
    part of it. Numbers that are not known are nan.
    """
    seconds = passes = 0.0
    together = 1
    for category in config.data.categories:
        before = 0
        for record in _records(folder / category / TRAINING_METRICS):
            try:
                steps, each = record["step"] - before, int(record.get("together", 1))
                seconds += steps / record["steps_per_second"] / each
                passes += steps * record["teacher_passes"] * config.train.batch_size
            except (KeyError, TypeError, ZeroDivisionError):
                return math.nan, math.nan, together
            before, together = record["step"], max(together, each)
    return (seconds, passes, together) if seconds else (math.nan, math.nan, together)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield parsed_json(line)
            except ValueError:  # the last line of a process that was killed
                continue


def _last_step(path: Path) -> int:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        return next(
            int(parsed_json(line)["step"]) for line in reversed(lines) if line.endswith("}")
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return 0
