"""What a person sees while the program works: notes, and one progress line, all on stderr."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO


def note(message: str) -> None:
    """Print one line to stderr."""
    print(message, file=sys.stderr, flush=True)


class ProgressLine:
    """Step, losses, rates and time left of a loop of known length.

    On a terminal one line is rewritten in place. Elsewhere (a file, a pipe) a line is printed at
    most every `interval` seconds, besides the first and the last.
    """

    def __init__(
        self,
        label: str,
        total: int,
        start: int = 0,
        items_per_step: int = 1,
        unit: str = "step",
        interval: float = 30.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin at step `start` of `total`; a step handles `items_per_step` images."""
        self._label, self._total, self._unit = label, total, unit
        self._items = items_per_step
        self._stream = stream or sys.stderr
        self._interval = interval if not self._stream.isatty() else 0.0
        self._clock = clock
        self._mark = (clock(), start)
        self._printed: float | None = None
        self._width = 0
        self.rate = 0.0  # steps a second between the last two updates

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Report that `step` steps are done; `values` are shown by name, in order."""
        now = self._clock()
        then, before = self._mark
        if step > before and now > then:
            self.rate = (step - before) / (now - then)
            self._mark = (now, step)
        last = step >= self._total
        due = self._printed is None or last or now - self._printed >= self._interval
        if due:
            self._printed = now
            self._write(self._text(step, values or {}))

    def restart_clock(self, step: int) -> None:
        """Count the rate from `step` and now: leaves out a save or a compilation."""
        self._mark = (self._clock(), step)

    def close(self) -> None:
        """End the line on a terminal."""
        if self._stream.isatty() and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _text(self, step: int, values: Mapping[str, float]) -> str:
        parts = [f"{self._label}  {self._unit} {step}/{self._total}"]
        parts += [f"{name} {value:.4g}" for name, value in values.items()]
        if self.rate > 0:
            parts.append(f"{self.rate:.3g} {self._unit}s/s")
            if self._items > 1:
                parts.append(f"{self.rate * self._items:.3g} images/s")
            parts.append(f"left {format_seconds((self._total - step) / self.rate)}")
        return "  ".join(parts)

    def _write(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """Seconds as `h:mm:ss`, or `m:ss` below an hour."""
    minutes, whole = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"
