"""Ctrl-C and SIGTERM as an orderly end."""

import os
import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_heard: list[int] = []  # since the command began
# JAX's, which the garbage collector calls; after long work in C++ it is often the first Python code
# that runs, and thereby where signals arrive.
_COLLECTOR_CALLBACK = "_xla_gc_callback"


def status_of_signal() -> int:
    """The exit status of a command that a signal ended: 128 and the number of the first."""
    return 128 + (_heard[0] if _heard else signal.SIGINT)


class Interrupted(Exception):
    """The run was asked to stop and has saved its state; the text is one line for the user."""


class StopRequest:
    """While this context is open, the first SIGINT or SIGTERM only sets `requested`.

    The training loop looks at it between steps. A second signal raises KeyboardInterrupt at once.
    Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class TerminateAsInterrupt:
    """While this context is open, SIGINT and SIGTERM raise KeyboardInterrupt, and none is lost."""

    def __enter__(self) -> None:
        _heard.clear()
        self._previous: dict[int, object] = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, _interrupt) for s in _SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _interrupt(number: int, frame: FrameType | None) -> None:
    if frame is not None and frame.f_code.co_name == _COLLECTOR_CALLBACK:
        # Python drops what is raised there, so the signal has to come again.
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return
    _heard.append(number)
    raise KeyboardInterrupt
