"""The images that a command line names, one after the other, never all in memory."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stlm_jax.data.folders import by_number, files_below, is_image
from stlm_jax.prediction.numbered import Missing, Pattern
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import in_bucket, is_taken, path_of, real_name
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable

STDIN = "-"


class Source(NamedTuple):
    """An image file.

    Attributes:
        path: by which it is read.
        location: absolute, which tells it from all others.
    """

    path: Path
    location: str

    @classmethod
    def of(cls, path: Path) -> "Source":
        """A file; links to its folder are resolved, so that `..` has one meaning."""
        if in_bucket(path):
            return cls(path, str(path))
        return cls(path, os.path.join(os.path.realpath(path.parent), path.name))


class Sources:
    """What arguments name: files, folders, globs, numbered frames, and `-`, a list on stdin.

    Attributes:
        base: the folder, absolute, below which all is, but for a list.
    """

    def __init__(self, names: Sequence[str], recursive: bool, output: Path):
        """Raises UserError where an argument names nothing; `output` is no source.

        Says which numbers are missing of numbered frames.
        """
        self._names, self._recursive, self._output = names, recursive, output.resolve()
        roots = [self._root_of(name) for name in names]
        if len(set(roots)) == 1:
            self.base = roots[0]
        else:
            self.base = "/" if any(map(in_bucket, roots)) else os.path.commonpath(roots)

    def __iter__(self) -> Iterator[Source]:
        others = _Others()
        for name in self._names:
            if name == STDIN:
                for line in getattr(sys.stdin, "buffer", sys.stdin):
                    listed = os.fsdecode(line).rstrip("\r\n")
                    if listed:
                        yield Source.of(path_of(listed))
            else:
                yield from self._named(name, others)
        others.tell()

    @property
    def total(self) -> int | None:
        """How many there are; None where that is known only at the end of a list."""
        if STDIN in self._names:
            return None
        silent = _Others()
        return sum(1 for name in self._names for _ in self._named(name, silent))

    def _named(self, name: str, others: "_Others") -> Iterator[Source]:
        path = path_of(name)
        if path.is_dir():
            yield from below(path, self._recursive, others, self._output)
        elif is_taken(path):
            yield Source.of(path)
        elif pattern := Pattern.of(name):
            yield from (Source.of(p) for _, p in pattern.files() if others.is_image(p))
        else:
            inside = f"{self._output}{os.sep}"
            for match in sorted(map(Path, glob.glob(name, recursive=True)), key=by_number):
                source = Source.of(match)
                if not source.path.is_dir() and not source.location.startswith(inside):
                    if others.is_image(source.path):
                        yield source

    def _root_of(self, name: str) -> str:
        if name == STDIN:
            return os.getcwd()
        if not name:
            raise UserError("INPUT is empty: give a file, a folder or a glob")
        path = path_of(name)
        if path.is_dir():
            if not in_bucket(path) and path.resolve() == self._output:
                raise UserError(
                    f"--output={self._output}: is the folder of the images, and pictures would be "
                    "taken for images the next time: give another"
                )
            return real_name(path)
        if is_taken(path):
            return os.path.dirname(Source.of(path).location)
        if pattern := Pattern.of(name):
            missing = Missing()
            for number in pattern.require():
                missing.take(number)
            missing.tell(pattern)
            return real_name(pattern.folder)
        if in_bucket(path) or not glob.has_magic(name):
            raise UserError(f"INPUT {printable(name)}: no such file or folder")
        if next(glob.iglob(name, recursive=True), None) is None:
            raise UserError(f"INPUT {printable(name)}: no file matches")
        fixed = Path(name)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return os.path.realpath(fixed)


def below(
    folder: Path, recursive: bool, others: "_Others | None" = None, *left_out: Path
) -> Iterator[Source]:
    """The images in a folder, as people count; `left_out` are folders, resolved."""
    others, root = others or _Others(), real_name(folder)
    for path in files_below(folder, *left_out, recursive=recursive, key=by_number):
        if others.is_image(path):
            yield Source(path, f"{root.rstrip('/')}/{path.relative_to(folder).as_posix()}")


class _Others:
    """Counts files that are no images by their suffix."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""

    def is_image(self, path: Path) -> bool:
        if is_image(path):
            return True
        self._count += 1
        self._first = self._first or printable(path)
        return False

    def tell(self) -> None:
        if self._count:
            note(
                f"warning: {self._count} of the files are no images by their suffix, or are no "
                f"files, and were passed over: {self._first}" + ", …" * (self._count > 1)
            )
