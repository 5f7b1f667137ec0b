"""What the command lines of this package share."""

import sys
from collections.abc import Callable
from pathlib import Path

from stlm_jax.errors import UserError


def exit_status(command: Callable[[], None]) -> int:
    """Runs a command: 0, or 2 after one line about bad input, or 130 when interrupted."""
    try:
        command()
    except UserError as error:
        return _fail(" ".join(str(error).split()), 2)
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"{error.filename or 'disk'}: {error.strerror}", 2)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was written", 130)
    return 0


def check_output(output: Path, *sources: Path | None) -> None:
    """Raises UserError if `output` is a folder or one of `sources`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    if output.resolve() in [source.resolve() for source in sources if source]:
        raise UserError(f"{output}: would overwrite what is read; give another name")


def _fail(line: str, status: int) -> int:
    print(f"error: {line}", file=sys.stderr, flush=True)
    return status
