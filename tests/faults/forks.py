"""Forks of this process: what one is at, and how it ends that is killed at some moment."""

import contextlib
import functools
import importlib
import mmap
import os
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

from stlm_jax.runtime.interrupt import TerminateAsInterrupt

STARTS = "starts"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stage:
    """What a forked process is at, as both it and this process see it."""

    def __init__(self, names: dict[str, str]):
        self._functions, self._shared = names, mmap.mmap(-1, 1)
        self._names = [STARTS, *dict.fromkeys(names.values())]

    def __str__(self) -> str:
        return self._names[self._shared[0]]

    def watch(self) -> None:
        """Has the functions say, in this process, that they are at work."""
        self._shared[0] = 0
        for where, name in self._functions.items():
            module, _, path = where.partition(":")
            owner: Any = importlib.import_module(module)
            *above, last = path.split(".")
            for part in above:
                owner = getattr(owner, part)
            setattr(owner, last, self._saying(getattr(owner, last), self._names.index(name)))

    def _saying(self, function: Callable, number: int) -> Callable:
        @contextlib.contextmanager
        def at_it():
            before, self._shared[0] = self._shared[0], number
            try:
                yield
            finally:
                self._shared[0] = before

        @contextlib.contextmanager
        def through(context):
            with at_it(), context as value:
                yield value

        @functools.wraps(function)
        def watched(*arguments, **named):
            with at_it():
                result = function(*arguments, **named)
            is_context = isinstance(result, contextlib._GeneratorContextManager)
            return through(result) if is_context else result

        return watched


class Listening(TerminateAsInterrupt):
    """Hears signals while the command is at work; else they wait, in a fork."""

    def __enter__(self) -> None:
        super().__enter__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        super().__exit__(*error)


def forked(
    work: Callable[[], int],
    log: pathlib.Path,
    after: float | None = None,
    by: int = signal.SIGKILL,
) -> int:
    """How a fork of this process ended that did some work; negative: by that signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    child = os.fork()
    if not child:
        status = 70
        try:
            with open(log, "a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if after is not None:
        end = time.monotonic() + after
        while (left := end - time.monotonic()) > 0:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(min(left, 0.002))
        os.kill(child, by)  # of one that has ended nothing is left but its status
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
