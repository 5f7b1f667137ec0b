"""How fast a loop runs, apart from how that is shown."""

import time
from collections.abc import Callable


class Timer:
    """Steps a second between two readings, without what the loop did besides."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic):
        """Starts at `step`."""
        self._clock = clock
        self.restart(step)

    def restart(self, step: int) -> None:
        """Counts from `step` and now: leaves out a save or a compilation."""
        self._mark = self._clock(), step

    def rate(self, step: int) -> float:
        """Steps a second since the last reading or restart, 0.0 where none was done."""
        now = self._clock()
        then, before = self._mark
        self._mark = now, step
        return (step - before) / (now - then) if step > before and now > then else 0.0
