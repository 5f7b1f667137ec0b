"""Paths out of what users write: of local files, or in a bucket where it begins with `gs://`.

A path in a bucket has the methods of `pathlib.Path` that this package uses. What a library reads or
writes by itself has to be a local file: `local_copy` and `Staged` are for those.
"""

import atexit
import functools
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from stlm_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from stlm_jax.runtime.bucket import BucketPath

BUCKETS = "gs://"


def path_of(name: str | os.PathLike[str]) -> Path:
    """The path that a text names; of a bucket's no other method is used than `BucketPath` has."""
    if not in_bucket(name):
        if isinstance(name, str) and re.match(r"[a-z][a-z0-9+]*://", name):
            raise UserError(f"{name}: of places that are no local folder only {BUCKETS}… is known")
        return Path(name)
    from stlm_jax.runtime.bucket import BucketPath  # here: its libraries take long to import

    return cast(Path, BucketPath(name))


def in_bucket(name: object) -> bool:
    """Whether a text or path names something in a bucket."""
    return isinstance(name, (str, os.PathLike)) and os.fspath(name).startswith(BUCKETS)


def real_name(path: Path) -> str:
    """What tells a file or folder from others, by whatever links it is reached."""
    return str(path) if in_bucket(path) else os.path.realpath(path)


def is_taken(path: Path) -> bool:
    """Whether there is something of that name, be it a broken link."""
    return path.exists() if in_bucket(path) else os.path.lexists(path)


def local_copy(name: str | os.PathLike[str]) -> Path:
    """A file as a local one: itself, or a copy of a bucket's that lasts as long as the process.

    A bucket's file that is not there is copied to nowhere, so that its reader says so.
    """
    path = path_of(name)
    if not in_bucket(path):
        return path
    copy = _copy_of(path)
    if not copy.exists() and path.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_name(f".{copy.name}.{threading.get_ident()}.tmp")
        cast("BucketPath", path).download(unfinished)
        os.replace(unfinished, copy)
    return copy


def forget_copy(path: Path) -> None:
    """Has the next `local_copy` of a bucket's file, which was written anew, be another."""
    _copy_of(path).unlink(missing_ok=True)


def _copy_of(path: Path) -> Path:
    return _copies() / str(path).removeprefix(BUCKETS)


@functools.cache
def _copies() -> Path:
    folder = tempfile.mkdtemp(prefix="stlm_jax_bucket_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Staged:
    """A folder for a library that writes local files: itself, or one that is copied to a bucket.

    As a context it sends what is there at the end, and nothing more after an exception.

    Attributes:
        path: the local folder; it is there.
        is_copied: whether it is another than the folder that it stands for.
    """

    def __init__(self, folder: Path):
        """Stands for `folder`."""
        self._folder = folder
        self._sent: dict[Path, tuple[int, int]] = {}
        self.is_copied = in_bucket(folder)
        if self.is_copied:
            self.path = Path(tempfile.mkdtemp(prefix="stlm_jax_staged_"))
        else:
            self.path = folder
            folder.mkdir(parents=True, exist_ok=True)

    def send(self, name: str = "*") -> None:
        """Copies what has changed and is called so to the bucket; each file as a whole."""
        if not self.is_copied:
            return
        for file in sorted(path for path in self.path.rglob(name) if path.is_file()):
            state = file.stat().st_size, file.stat().st_mtime_ns
            if self._sent.get(file) != state:
                (self._folder / file.relative_to(self.path).as_posix()).write_bytes(
                    file.read_bytes()
                )
                self._sent[file] = state

    def close(self) -> None:
        """Sends the rest; the local copies are removed."""
        self.send()
        self._remove()

    def _remove(self) -> None:
        if self.is_copied:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.send()
        self._remove()
