"""Python files of a user: configurations, studies, spaces; whatever goes wrong in them is told."""

import contextlib
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stlm_jax.runtime.errors import UserError


def function_of(option: str, file: Path, name: str) -> Any:
    """What a file calls `name`; None where it has no such thing.

    Args:
        option: that named the file, such as `--config`.
        file: a Python file.
        name: of a function in it.
    """
    if not file.is_file():
        others = sorted(str(p) for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        there = f"; there are {', '.join(others)}" if others else ""
        raise UserError(f"{option}={file}: no such file{there}")
    with blamed_on(option, file):
        return runpy.run_path(str(file)).get(name)


@contextlib.contextmanager
def blamed_on(option: str, file: Path) -> Iterator[None]:
    """Tells in a line what a file's own code raises."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserError(f"{option}={file}: {type(error).__name__}: {error}") from error
