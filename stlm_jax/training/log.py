"""What a training says of itself as it runs: `metrics.jsonl`, TensorBoard, the progress line."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import jax

from stlm_jax.runtime.metric_writer import MetricWriter
from stlm_jax.runtime.progress import Progress, note
from stlm_jax.runtime.timer import Timer
from stlm_jax.workdir import TRAINING_METRICS

_MEAN = "teacher_passes"
_SHOWN = ("loss", "cosine", "focal", "l1")  # on the progress line; all go to the files


class NotFiniteError(Exception):
    """A number of the training is infinite or nan; the text says which, and of which step."""


def _words(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"


class TrainingLog:
    """The metrics of one category's training, one step set aside at a time.

    Attributes:
        writer: of the files.
    """

    def __init__(self, category: str, total: int, start: int, folder: Path):
        """Goes on after step `start` of `total`."""
        self.writer = MetricWriter(folder / TRAINING_METRICS, start)
        self._progress = Progress(f"train {category}", total, start, "step")
        self._timer = Timer(start)
        self._waiting: tuple[int, dict[str, jax.Array], int] | None = None
        self._passes: jax.Array | None = None  # their sum, on the device, over so many steps
        self._counted = 0

    def put(self, step: int, metrics: Mapping[str, jax.Array], shown: bool) -> None:
        """Takes the metrics of a step, which may not be computed yet.

        They are set aside if they are to be `shown`. How often the teacher was run is different in
        every step: it is the mean over the steps since the last one shown.
        """
        passes = metrics[_MEAN]
        self._passes = passes if self._passes is None else self._passes + passes
        self._counted += 1
        if shown:
            self._waiting = step, {**metrics, _MEAN: self._passes}, self._counted
            self._passes, self._counted = None, 0

    def write(self, done: int) -> None:
        """Writes what was set aside, if anything, once it is computed; `done` steps were begun."""
        if self._waiting is None:
            return
        step, metrics, counted = self._waiting
        self._waiting = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        values[_MEAN] /= counted
        if not math.isfinite(values["loss"]):
            raise NotFiniteError(f"the loss became {values['loss']} at step {step}")
        self._progress.reach(step, {name: values[name] for name in _SHOWN})
        self.writer.write(step, values | {"steps_per_second": self._timer.rate(done)})

    def announce(self, seconds: float) -> None:
        """Says how long the steps will take, of which one took so many `seconds`."""
        left = self._progress.total - self._progress.n
        note(
            f"{self._progress.desc}: {seconds:.2g} s a step, {left} steps: {_words(seconds * left)}"
        )

    @contextlib.contextmanager
    def pause(self, step: int) -> Iterator[None]:
        """What is done inside, such as a save after `step`, counts in no rate."""
        begin = time.monotonic()
        self.writer.send()  # before a save: a run that goes on from there finds all lines
        yield
        self._timer.restart(step)
        self._progress.leave_out(time.monotonic() - begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        self.writer.close()
