"""A trace of some steps by `jax.profiler`, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax

from stlm_jax.runtime.paths import Staged
from stlm_jax.runtime.progress import note


class Profiler:
    """Records `steps` steps of a loop, from number `start` on, into a folder; none of 0."""

    def __init__(self, folder: Path, start: int, steps: int):
        """Nothing is recorded before `step` is called with `start`."""
        self._folder, self._steps = folder, range(start, start + steps)
        self._open: Staged | None = None

    def step(self, number: int, function: Callable, *arguments: Any) -> Any:
        """What `function` gives of its arguments, as step `number`."""
        if number == self._steps.start and self._steps:
            self._open = Staged(self._folder)
            jax.profiler.start_trace(str(self._open.path))
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = function(*arguments)
        if self._open and number == self._steps[-1]:
            jax.block_until_ready(result)  # else the trace ends before the device has
            self.close()
        return result

    def close(self) -> None:
        """Ends a trace that is open."""
        if self._open:
            jax.profiler.stop_trace()
            self._open.close()
            self._open = None
            note(f"a profile from step {self._steps.start} on is in {self._folder}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
