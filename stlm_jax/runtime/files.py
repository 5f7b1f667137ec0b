"""Files that are either whole or absent, JSON that every reader takes, and what disks refuse."""

import contextlib
import errno
import functools
import io
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stlm_jax.runtime.paths import forget_copy, in_bucket, path_of

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = re.compile(r"\.(.*\.)?\d+\.tmp", re.S)  # of a process


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
    sweep(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    file: BinaryIO | None = None
    try:
        file = _begun(unfinished)
        yield file
        file.flush()
        # The rename may reach the disk before the content: a power cut would leave it empty.
        os.fsync(file.fileno())
        if fcntl is None:  # such a system renames no open file; elsewhere it stays locked
            file.close()
        os.replace(unfinished, path)
    except BaseException as error:
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        _name(error, path, unfinished)
        raise
    file.close()


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """While this context is open, an error of the disk that names no file gets the name `path`."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


@functools.lru_cache(1024)
def sweep(folder: Path) -> None:
    """Removes what killed processes were writing in a folder; that of those at work is locked.

    It is looked at once a process.
    """
    if fcntl is None or not folder.is_dir():
        return
    for path in folder.glob(".*.tmp"):
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError), open(path, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _begun(path: Path) -> BinaryIO:
    """A new file, locked where files can be, so that nobody sweeps it away."""
    while True:
        file = open(path, "wb")  # noqa: SIM115
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # no locks there: then none are swept either
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # swept away before it was locked


def _name(error: BaseException | None, path: Path, unfinished: Path | None = None) -> None:
    """Has errors of the disk, those behind an error too, name `path`."""
    while error is not None:
        known = (None, str(unfinished))
        if isinstance(error, OSError) and error.errno and error.filename in known:
            error.filename, error.filename2 = str(path), None
        error = error.__context__


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
