"""A folder that a camera fills: new files are judged when they are whole, and moved away.

The folder is looked at every `--poll` seconds. Notifications of the system would spare that, and
need a library more, but do not come for files that another machine writes to a network drive.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stlm_jax.data.folders import by_number, is_image
from stlm_jax.inference.warm_up import warm_up
from stlm_jax.prediction.journal import Journal
from stlm_jax.prediction.judge import Done, Judge, begin
from stlm_jax.prediction.naming import folds_case
from stlm_jax.prediction.numbered import Missing, Pattern
from stlm_jax.prediction.options import STOP, Options
from stlm_jax.prediction.seen import ABSENT, FAILED, Key
from stlm_jax.prediction.sources import Source, below
from stlm_jax.prediction.tally import Tally
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import open_atomically
from stlm_jax.runtime.interrupt import StopRequest
from stlm_jax.runtime.paths import in_bucket, is_taken, path_of
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import as_utf8

if TYPE_CHECKING:
    from stlm_jax.inference.detector import Detector

_DONE, _FAILED = "done", "failed"
_PATIENCE = 10  # times --settle, until a file that is still and cannot be read is given up
_LONGEST_SLEEP = 0.1  # seconds: so soon a signal is answered


class _Still(NamedTuple):
    stamp: str
    since: float  # on the monotonic clock: that of a network drive may be another


class Watched:
    """The folder.

    Attributes:
        base: its path, absolute.
    """

    def __init__(self, options: Options):
        """Looks at nothing yet."""
        name = options.inputs[0]
        self._options, self._folder = options, path_of(name)
        self._pattern = None if self._folder.is_dir() else Pattern.of(name)
        self._missing = Missing()
        if self._pattern:
            self._folder = self._pattern.folder
        if in_bucket(name) or not self._folder.is_dir():
            raise UserError(
                f"--watch: INPUT {name} is no local folder, nor a pattern of numbered frames in one"
            )
        self.base = os.path.realpath(self._folder)
        self._done = options.done or self._folder / _DONE
        self._failed = self._folder / _FAILED
        for flag, folder in (("--output", options.output), ("--done", self._done)):
            if os.path.realpath(folder) == self.base:
                raise UserError(f"{flag}={folder}: is the watched folder itself, give another")
        self._still: dict[str, _Still] = {}

    def judge(self, detector: "Detector", journal: Journal, batch: int) -> int:
        """Judges what comes until a signal; the exit status."""
        tally, judge = Tally(self._options.quiet), Judge(detector, self._options, batch)
        side = detector.description.image_size
        warm_up(self._options.model, lambda views: detector.views(views, batch), side, [batch])
        folds = folds_case(self._options.output)

        def knew(source: Source, state: str) -> None:
            # Killed when its row was written and before it was moved.
            self._retire(source, state == FAILED)
            self._count(source)
            tally.knew(state)

        with StopRequest() as stop:
            note(f"watching {self._pattern or self._folder}: Ctrl-C or SIGTERM ends it")
            while not stop.requested:
                ready = self._until(stop, self._ready())
                images = begin(ready, journal.seen, journal.base, folds, knew)
                with contextlib.closing(judge.rows(images, ahead=batch)) as rows:
                    for done in rows:
                        self._finish(done, journal, tally)
                self._wait(stop)
        note("stopped after the image at hand; the same command goes on")
        if self._pattern:
            self._missing.tell(self._pattern)
        tally.tell(journal.path)
        return tally.status

    def _ready(self) -> list[Source]:
        """The files that have not changed for a while: the oldest first, frames by number."""
        now, still, ready = time.monotonic(), {}, []
        for source in self._files():
            stamp = Key.of(source).stamp
            before = self._still.get(source.location)
            kept = before if before and before.stamp == stamp else _Still(stamp, now)
            still[source.location] = kept
            if now - kept.since >= self._options.settle:
                # Copied together, files may have one time.
                number = self._number_of(source)
                place = _time_of(stamp) if number is None else number
                ready.append((place, by_number(source.path), source))
        self._still = still
        return [source for *_, source in sorted(ready, key=lambda file: file[:2])]

    def _number_of(self, source: Source) -> int | None:
        return self._pattern.number_of(source.path.name) if self._pattern else None

    def _count(self, source: Source) -> None:
        number = self._number_of(source)
        if number is not None:
            self._missing.take(number)

    def _files(self) -> Iterator[Source]:
        if self._pattern:
            yield from (Source.of(p) for _, p in self._pattern.files() if is_image(p))
            return
        others = [p.resolve() for p in (self._options.output, self._done, self._failed)]
        yield from below(self._folder, self._options.recursive, None, *others)

    def _until(self, stop: StopRequest, sources: list[Source]) -> Iterator[Source]:
        for source in sources:
            if stop.requested:
                return
            if Key.of(source).stamp == self._still[source.location].stamp:
                yield source

    def _finish(self, done: Done, journal: Journal, tally: Tally) -> None:
        source, key, row = done.image.source, done.image.key, done.row
        age = time.monotonic() - self._still[source.location].since
        is_new = not done.is_read and age < _PATIENCE * self._options.settle
        # It is being written, or was while it was read, or somebody took it away.
        if is_new or key.stamp == ABSENT or Key.of(source) != key:
            journal.seen.forget(key)
            return
        is_bad = "error" in row
        if is_bad and self._options.on_error == STOP:
            raise UserError(row["error"])
        row["moved_to"] = as_utf8(self._place_of(source, is_bad).absolute())
        journal.append(key, row, now=True)
        self._retire(source, is_bad)
        self._count(source)
        tally.add(row)

    def _place_of(self, source: Source, is_bad: bool) -> Path:
        """Where a file goes: where nothing is, for a camera may count anew."""
        wanted = (self._failed if is_bad else self._done) / source.path.relative_to(self._folder)
        place, number = wanted, 1
        while is_taken(place):
            number += 1
            place = wanted.with_name(f"{wanted.stem}~{number}{wanted.suffix}")
        return place

    def _retire(self, source: Source, is_bad: bool) -> None:
        place = self._place_of(source, is_bad)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(source.path, place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with open_atomically(place) as file, open(source.path, "rb") as original:
                shutil.copyfileobj(original, file)
            shutil.copystat(source.path, place)
            source.path.unlink()

    def _wait(self, stop: StopRequest) -> None:
        end = time.monotonic() + self._options.poll
        while not stop.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LONGEST_SLEEP))


def _time_of(stamp: str) -> int:
    return int(stamp.partition(":")[2] or 0)
