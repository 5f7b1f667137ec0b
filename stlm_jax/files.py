"""Files that are either whole or absent."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write beside `path`, renamed over it at the end. Folders are made as needed.

    A reader sees the old content or the new, and a failure leaves the old.

    Raises:
        OSError: the disk or the permissions refuse.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write `content`, text as UTF-8, by `open_atomically`; returns the path.

    Raises:
        OSError: the disk or the permissions refuse.
    """
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)
