"""What a training says of itself as it runs: `metrics.jsonl`, TensorBoard, the progress line."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Self

import jax
import numpy as np

from stlm_jax.runtime.metric_writer import MetricWriter, SilentWriter
from stlm_jax.runtime.progress import Progress, note
from stlm_jax.runtime.timer import Timer
from stlm_jax.training.divergence import NotFiniteError
from stlm_jax.training.members import Member
from stlm_jax.workdir import TRAINING_METRICS

_MEAN = "teacher_passes"
_SUM = "losses"  # of all steps since the last that was shown
_SHOWN = ("loss", "cosine", "focal", "l1")  # on the progress line; all go to the files


def _words(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"


Place = tuple[int, int]  # of a member: its group, and which of the group's it is


class TrainingLog:
    """The metrics of trainings that make the same steps, one step set aside at a time.

    Attributes:
        writers: of each member's files, by its place.
    """

    def __init__(self, members: Mapping[Place, Member], start: int):
        """Goes on after step `start`."""
        kind = MetricWriter if jax.process_index() == 0 else SilentWriter
        self.writers = {
            place: kind(member.folder / TRAINING_METRICS, start)
            for place, member in members.items()
        }
        self._progress = {
            place: Progress(f"train {member.label}", member.total, start, "step", line)
            for line, (place, member) in enumerate(members.items())
        }
        self._timer = Timer(start)
        self._waiting: tuple[int, dict[str, jax.Array], int, set[Place]] | None = None
        self._passes: jax.Array | None = None  # their sum, on the device, over so many steps
        self._losses: jax.Array | None = None  # their sum; one that is not finite spoils it
        self._counted = 0
        self._finite = start  # the losses until this step are known to be

    def put(
        self, step: int, metrics: Mapping[str, jax.Array], shown: bool, active: set[Place]
    ) -> None:
        """Takes the metrics of a step, which may not be computed yet.

        They are set aside if they are to be `shown`. How often the teacher was run is different in
        every step: it is the mean over the steps since the last one shown.

        Args:
            step: number of it, from 1.
            metrics: by name, (groups, members of a group).
            shown: whether they are to be.
            active: the places of the members that made the step.
        """
        passes = metrics[_MEAN]
        self._passes = passes if self._passes is None else self._passes + passes
        loss = metrics["loss"]
        self._losses = loss if self._losses is None else self._losses + loss
        self._counted += 1
        if shown:
            metrics = {**metrics, _MEAN: self._passes, _SUM: self._losses}
            self._waiting = step, metrics, self._counted, set(active)
            self._passes, self._losses, self._counted = None, None, 0

    def write(self, done: int) -> dict[Place, NotFiniteError]:
        """Writes what was set aside, if anything, once it is computed; `done` steps were begun.

        Returns:
            What is wrong with those members whose loss is not finite.
        """
        if self._waiting is None:
            return {}
        step, metrics, counted, active = self._waiting
        self._waiting = None
        values = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
        rate = self._timer.rate(done)
        failed = {}
        for place in sorted(active):
            own = {name: float(value[place]) for name, value in values.items()}
            own[_MEAN] /= counted
            losses = own.pop(_SUM)
            if not math.isfinite(own["loss"]):
                failed[place] = NotFiniteError(f"the loss became {own['loss']} at step {step}")
            elif not math.isfinite(losses):
                failed[place] = self._not_finite(losses, step)
            else:
                self._progress[place].reach(step, {name: own[name] for name in _SHOWN})
                # Of all that are trained together: each has its share of the time.
                shared = {"steps_per_second": rate, "together": float(len(active))}
                self.writers[place].write(step, own | shared)
        self._finite = step
        return failed

    def check(self, done: int, active: set[Place]) -> dict[Place, NotFiniteError]:
        """As `write`; besides, of the active ones also the losses of steps that are not shown."""
        failed = self.write(done)
        if self._losses is not None:
            losses = np.asarray(jax.device_get(self._losses))
            for place in sorted(active - set(failed)):
                if not math.isfinite(losses[place]):
                    failed[place] = self._not_finite(float(losses[place]), done)
            self._finite = done
        return failed

    def _not_finite(self, losses: float, step: int) -> NotFiniteError:
        return NotFiniteError(f"a loss became {losses} in steps {self._finite + 1} to {step}")

    def announce(self, seconds: float) -> None:
        """Says how long the steps will take, of which one took so many `seconds`."""
        longest = max(self._progress.values(), key=lambda progress: progress.total - progress.n)
        left = longest.total - longest.n
        several = f" and {len(self._progress) - 1} more" if len(self._progress) > 1 else ""
        note(
            f"{longest.desc}{several}: {seconds:.2g} s a step, {left} steps: "
            f"{_words(seconds * left)}"
        )

    def end(self, place: Place) -> None:
        """Ends the line of a member that goes on no more."""
        self._progress[place].close()

    @contextlib.contextmanager
    def pause(self, step: int) -> Iterator[None]:
        """What is done inside, such as a save after `step`, counts in no rate."""
        begin = time.monotonic()
        for writer in self.writers.values():
            writer.send()  # before a save: a run that goes on from there finds all lines
        yield
        self._timer.restart(step)
        for progress in self._progress.values():
            progress.leave_out(time.monotonic() - begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for progress in self._progress.values():
            progress.close()
        for writer in self.writers.values():
            writer.close()
