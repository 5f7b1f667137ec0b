"""Files that are either whole or absent, JSON that every reader takes, and what disks refuse."""

import contextlib
import errno
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stlm_jax.runtime.paths import forget_copy, in_bucket, path_of


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write beside `path`, renamed over it at the end. Folders are made as needed.

    A reader sees the old content or the new, and a failure leaves the old. A bucket takes a file as
    a whole, which is in memory until then.
    """
    path = path_of(path)
    if in_bucket(path):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        forget_copy(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            # The rename may reach the disk before the content: a power cut would leave it empty.
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: bytes | str) -> Path:
    """Writes `content`, text by `encoded`, by `open_atomically`; returns the path."""
    with open_atomically(path) as file:
        file.write(encoded(content) if isinstance(content, str) else content)
    return path_of(path)


def encoded(text: str) -> bytes:
    r"""`text` as UTF-8, with `\udce9` for what has no such form: a file's name may be any bytes."""
    return text.encode("utf-8", "backslashreplace")


def write_json(path: str | os.PathLike, content: Any) -> Path:
    """Writes `json_text(content)` by `open_atomically`; returns the path."""
    return write_atomically(path, json_text(content))


def json_text(content: Any) -> str:
    """`content` as indented JSON that ends with a newline, null for nan and the infinities."""
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """What a JSON file holds; whatever is wrong with its content is a ValueError."""
    return parsed_json(path.read_bytes())


def parsed_json(text: str | bytes) -> Any:
    """As `read_json`, of a text or its UTF-8."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError:
        raise ValueError("brackets in brackets, too many to be read") from None


def disk_problem(error: BaseException) -> str | None:
    """Says in words what the disk refused; None where the error is of another kind."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk"
    text = str(error)  # the array store reports the same as a plain exception
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return "no space left on the disk"
    denied = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM)
    if denied or "PERMISSION_DENIED" in text or text.startswith("Forbidden"):  # a bucket's
        return "the folder is not writable"
    return None


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(below) for below in value]
    if isinstance(value, (float, np.floating)):
        # JSON has no word for these numbers, and Python's own is refused by other readers.
        return float(value) if math.isfinite(value) else None
    return value
