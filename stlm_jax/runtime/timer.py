"""How fast a loop runs, apart from how that is shown."""

import time
from collections.abc import Callable


class Timer:
    """Steps a second between two readings, without what the loop did besides."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic):
        """Starts at `step`."""
        self._clock, self._rate = clock, 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        """Counts from `step` and now: leaves out a save or a compilation."""
        self._mark = self._clock(), step

    def rate(self, step: int) -> float:
        """Steps a second since the last reading or restart; where none was done, as it was."""
        now = self._clock()
        then, before = self._mark
        if step > before and now > then:
            self._rate, self._mark = (step - before) / (now - then), (now, step)
        return self._rate
