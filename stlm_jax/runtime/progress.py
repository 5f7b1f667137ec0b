"""What a person sees while the program works: notes and the progress of loops on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_quiet = False
_LOG_INTERVAL = 30.0  # seconds between lines where the output is no terminal
_TERMINAL = "{desc}  {n_fmt}/{total_fmt} |{bar:20}| {rate_noinv_fmt}  left {remaining}{postfix}"
_LOG = "{desc}  {n_fmt}/{total_fmt}  {rate_noinv_fmt}  left {remaining}{postfix}"


def be_quiet() -> None:
    """Has this process say no more but why it ends, as another of the same run says it all."""
    global _quiet
    _quiet = True


def note(message: str) -> None:
    """Prints one line to stderr, above a progress line that is there."""
    if _quiet:
        return
    clear = tqdm.external_write_mode(sys.stderr) if sys.stderr.isatty() else nullcontext()
    with clear:
        print(message, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Prints one line to stdout, above a progress line that is there."""
    if _quiet:
        return
    clear = tqdm.external_write_mode(sys.stdout) if sys.stderr.isatty() else nullcontext()
    with clear:
        print(line, flush=True)


class Progress(tqdm):
    """Number, rate and time left of a loop.

    On a terminal one line is rewritten in place. Elsewhere (a file, a pipe) a line is printed
    every 30 seconds, and one at the end.
    """

    monitor_interval = 0  # no thread of tqdm's own

    def __init__(
        self,
        label: str,
        total: int | None,
        start: int = 0,
        unit: str = "image",
        line: int | None = None,
    ):
        """A loop that has done `start` of `total`; of several at a time each has its `line`.

        Where `total` is None, it is not known.
        """
        self._in_place, self._logged = sys.stderr.isatty() and not _quiet, start
        super().__init__(
            total=total,
            initial=start,
            desc=label,
            unit=f" {unit}s",
            position=line,
            file=sys.stderr,
            dynamic_ncols=self._in_place,
            mininterval=0.2 if self._in_place else _LOG_INTERVAL,
            miniters=1,
            bar_format=_TERMINAL if self._in_place else _LOG,
        )
        # tqdm's clock is that of the day: set back, it would print nothing until it has caught up.
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()

    def reach(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Says that `step` are done; `values` are shown by name."""
        if values:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.set_postfix_str(text, refresh=False)
        self.update(step - self.n)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """As tqdm's, but in a log a line of its own, and none before there is progress."""
        if self._in_place:
            return super().display(msg, pos)
        if msg is None and self.n > self._logged and not _quiet:
            print(self, file=sys.stderr, flush=True)
            self._logged = self.n
        return True

    def leave_out(self, seconds: float) -> None:
        """Counts the last so many seconds as no part of the loop."""
        self.start_t += seconds
        self.last_print_t += seconds

    def close(self) -> None:
        """Ends the line."""
        if not (self._in_place or self.disable):  # type: ignore[has-type]
            self.display()
            self.disable = True  # tqdm's own end of a line would be an empty line in a log
        super().close()


def track(
    items: Iterable[T], label: str, total: int | None = None, unit: str = "image"
) -> Iterator[T]:
    """The items, their progress shown; the clock runs while the caller works on one.

    Args:
        items: of known length, or `total` is given.
        label: before the numbers.
        total: how many there are.
        unit: what one is called.
    """
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    with Progress(label, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
