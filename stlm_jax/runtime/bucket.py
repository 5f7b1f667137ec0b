"""Paths in Google Cloud Storage, by etils.epath and gcsfs."""

import functools
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from etils.epath import backend, gpath

from stlm_jax.runtime.errors import UserError, first_line

F = TypeVar("F", bound=Callable[..., Any])
_ROOT = "gs://"
_LISTED = ("FileNotFoundError", "FileExistsError", "IsADirectoryError", "NotADirectoryError")


def _told(method: F) -> F:
    """`method`, whose errors of network and permission are one line that names the path."""

    @functools.wraps(method)
    def told(self: "BucketPath", *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except UserError:
            raise
        except Exception as error:  # gcsfs, aiohttp and google.auth have each their own
            if type(error).__name__ in _LISTED:
                raise
            raise UserError(
                f"{self}: the bucket refuses ({first_line(error)}): check its name, your "
                "permissions and `gcloud auth application-default login`"
            ) from error

    return told  # type: ignore[return-value]


class BucketPath(gpath.PosixGPath):
    """A file or folder in a bucket, with the methods of `pathlib.Path` that are used here.

    A folder is there where a file is below it, and a file is whole or absent. What is in a folder
    is asked for whenever it is listed; gcsfs remembers the answer, so that no file of a listing is
    asked for singly.
    """

    @property
    def _files(self) -> Any:
        return _file_system(self.parts[2] if len(self.parts) > 2 else "")

    @property
    def parent(self) -> "BucketPath":
        """The folder that it is in; a bucket is in none, it is its own."""
        return super().parent if len(self.parts) > 3 else self

    def absolute(self) -> "BucketPath":
        """The path, which is never relative."""
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """The path: there are no links."""
        return self

    @_told
    def exists(self) -> bool:
        """Whether it is a file or folder."""
        return self._files.exists(str(self))

    @_told
    def is_dir(self) -> bool:
        """Whether a file is below it."""
        return self._files.isdir(str(self))

    @_told
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._files.isfile(str(self))

    def iterdir(self) -> Iterator["BucketPath"]:
        """Files and folders directly in it."""
        yield from [self / name for name in self._names()]

    @_told
    def _names(self) -> list[str]:
        paths = self._files.ls(str(self), detail=False, refresh=True)
        names = {path.rstrip("/").rsplit("/", 1)[-1] for path in paths if path.rstrip("/")}
        return sorted(names - ({self.name} if self._own_marker(paths) else set()))

    def _own_marker(self, paths: list[str]) -> bool:
        """Whether among the listed is an empty object that stands for the folder itself."""
        own = str(self).removeprefix(_ROOT)
        return any(path.rstrip("/") == own for path in paths)

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What matches a relative pattern without `**`."""
        first, _, rest = pattern.partition("/")
        if any(sign in first for sign in "*?["):
            found = [p for p in self._below() if fnmatchcase(p.name, first)]
        else:
            found = [self / first] if (self / first).exists() else []
        for path in found:
            yield from path.glob(rest) if rest else [path]

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        """The files and folders at any depth whose name matches a pattern."""
        below = self._below()
        folders = [path for path in below if path.is_dir()]  # before other listings drop this one
        yield from [path for path in below if fnmatchcase(path.name, pattern)]
        for folder in folders:
            yield from folder.rglob(pattern)

    def _below(self) -> list["BucketPath"]:
        return list(self.iterdir()) if self.is_dir() else []

    @_told
    def read_bytes(self) -> bytes:
        """The file's content."""
        return self._files.cat_file(str(self))

    @_told
    def download(self, target: Path) -> None:
        """Copies the file into a local one."""
        self._files.get_file(str(self), str(target))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The file's content as text, line ends as they are."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    @_told
    def write_bytes(self, data: bytes) -> int:
        """Writes the file as a whole; folders need not be there."""
        self._files.pipe_file(str(self), bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        """Writes the file as a whole."""
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def open(self, mode: str = "r", **options: Any) -> Any:
        """The file's content, to be read; files are written as a whole, see `write_bytes`."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: a file in a bucket is not opened to {mode!r}")
        content = io.BytesIO(self.read_bytes())
        if mode == "rb":
            return content
        return io.TextIOWrapper(content, **{"encoding": "utf-8", **options})

    @_told
    def stat(self) -> Any:
        """Size, time of change and kind, called as `os.stat` has them."""
        info = self._files.info(str(self))
        changed = info.get("mtime")
        return SimpleNamespace(
            st_size=info["size"],
            st_mtime_ns=int(changed.timestamp() * 1e9) if changed else 0,
            st_mode=stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG,
        )

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder is there once a file is."""

    @_told
    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        try:
            self._files.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise


@functools.cache
def _file_system(bucket: str) -> Any:
    """The file system of gcsfs, once the bucket has answered."""
    try:
        # The one that Orbax has of epath: what it remembers of a folder is right for both then.
        files = backend.fsspec_backend.fs(f"{_ROOT}{bucket}")
    except ImportError as error:
        raise UserError(
            f"{_ROOT}{bucket}: paths in a bucket need gcsfs; pip install 'stlm_jax[gcs]'"
        ) from error
    for name in ("gcsfs", "google.auth"):  # they print whole tracebacks of what is told below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not bucket:
        raise UserError(f"{_ROOT}: the name of the bucket is missing, as in {_ROOT}bucket/folder")
    try:
        files.ls(bucket, detail=False, max_results=1)
    except FileNotFoundError:
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        at = f" at {emulator}" if emulator else ""
        raise UserError(f"{_ROOT}{bucket}: there is no such bucket{at}: check its name") from None
    return files
