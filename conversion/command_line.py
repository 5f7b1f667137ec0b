"""What the command lines of this package share."""

from collections.abc import Callable
from pathlib import Path

from stlm_jax import exit_status as ending
from stlm_jax.errors import UserError


def exit_status(command: Callable[[], None]) -> int:
    """Runs a command that writes its file whole or not at all; its exit status."""
    return ending.exit_status(command, "stopped; nothing was written")


def check_output(output: Path, *sources: Path | None) -> None:
    """Raises UserError if `output` is a folder or one of `sources`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    if output.resolve() in [source.resolve() for source in sources if source]:
        raise UserError(f"{output}: would overwrite what is read; give another name")
