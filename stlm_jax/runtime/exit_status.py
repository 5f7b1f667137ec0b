"""How a command line ends: one line about what went wrong, and a status."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted, TerminateAsInterrupt, status_of_signal

CLOSED_PIPE, BAD_INPUT = 1, 2
STOPPED = "stopped; nothing was written"  # of a command that writes its files whole or not at all
_NO_MEMORY = (
    "memory does not suffice: lower image_size, train.batch_size, evaluate.batch_size, "
    "data.texture_count or data.cache_gib, or take a machine with more"
)

_FULL = "free some space and run the same command again"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,  # a limit of the shell's
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: "change its permissions, or give another place",
}


def exit_status(command: Callable[[], int | None], stopped: str) -> int:
    """Runs a command: its own status or 0, 2 after a line about bad input, 130 or 143 by a signal.

    Where the reader of the output has gone, as after `| head`, it ends in silence with 1. An output
    that was closed from the start, as by `>&-`, is written to nowhere.

    Args:
        command: what to run; SIGTERM (143) stops it as Ctrl-C (130) does.
        stopped: the line for a command that was interrupted and did not say how it ended.
    """
    try:
        _open_streams()
        with TerminateAsInterrupt():
            status = command()
            sys.stdout.flush()
    except UserError as error:
        return _fail(f"error: {' '.join(str(error).split())}", BAD_INPUT)
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):  # for the flush at exit
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return CLOSED_PIPE
    except OSError as error:
        if error.errno is None:
            raise
        advice = f": {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        return _fail(f"error: {error.filename or 'disk'}: {error.strerror}{advice}", BAD_INPUT)
    except Interrupted as stop:
        return _fail(f"\n{stop}", status_of_signal())
    except KeyboardInterrupt:
        return _fail(f"\n{stopped}", status_of_signal())
    except Exception as error:
        # JAX's own error of the kind cannot be named here without importing it.
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(f"error: {_NO_MEMORY} ({' '.join(str(error).split())[:160]})", BAD_INPUT)
    return status or 0


def end(status: int) -> NoReturn:
    """Ends the process with a status; where that is not 0, at once.

    Threads may still be at work then, on a compilation that nobody waits for or on files that are
    gone. Python would wait for them, and they would print what they run into.
    """
    if status == 0:
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _open_streams() -> None:
    """Opens what the shell has closed, and has names of files that are not UTF-8 printed, too."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest free number is taken: else a file of ours would get it, and with it all
            # that libraries write there.
            file = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(file, "w" if number else "r", encoding="utf-8"))
        elif number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _fail(line: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    return status
