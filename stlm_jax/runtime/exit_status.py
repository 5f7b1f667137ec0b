"""How a command line ends: one line about what went wrong, and a status."""

import os
import sys
from collections.abc import Callable

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted, TerminateAsInterrupt

CLOSED_PIPE, BAD_INPUT, INTERRUPTED = 1, 2, 130
STOPPED = "stopped; nothing was written"  # of a command that writes its files whole or not at all


def exit_status(command: Callable[[], int | None], stopped: str) -> int:
    """Runs a command: its own status or 0; 2 after one line about bad input; 130 when interrupted.

    Where the reader of the output has gone, as after `| head`, it ends in silence with 1.

    Args:
        command: what to run; SIGTERM stops it as Ctrl-C does.
        stopped: the line for a command that was interrupted and did not say how it ended.
    """
    try:
        with TerminateAsInterrupt():
            status = command()
            sys.stdout.flush()
    except UserError as error:
        return _fail(f"error: {' '.join(str(error).split())}", BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return CLOSED_PIPE
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"error: {error.filename or 'disk'}: {error.strerror}", BAD_INPUT)
    except Interrupted as stop:
        return _fail(f"\n{stop}", INTERRUPTED)
    except KeyboardInterrupt:
        return _fail(f"\n{stopped}", INTERRUPTED)
    return status or 0


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr, flush=True)
    return status
