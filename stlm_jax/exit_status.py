"""How a command line ends: one line about what went wrong, and a status."""

import sys
from collections.abc import Callable

from stlm_jax.errors import UserError
from stlm_jax.interrupt import Interrupted, TerminateAsInterrupt

BAD_INPUT, INTERRUPTED = 2, 130


def exit_status(command: Callable[[], None], stopped: str) -> int:
    """Runs a command: 0, or 2 after one line about bad input, or 130 when interrupted.

    Args:
        command: what to run; SIGTERM stops it as Ctrl-C does.
        stopped: the line for a command that was interrupted and did not say how it ended.
    """
    try:
        with TerminateAsInterrupt():
            command()
    except UserError as error:
        return _fail(f"error: {' '.join(str(error).split())}", BAD_INPUT)
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"error: {error.filename or 'disk'}: {error.strerror}", BAD_INPUT)
    except Interrupted as stop:
        return _fail(f"\n{stop}", INTERRUPTED)
    except KeyboardInterrupt:
        return _fail(f"\n{stopped}", INTERRUPTED)
    return 0


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr, flush=True)
    return status
