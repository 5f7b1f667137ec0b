"""What the check of a run's data found, kept for when the same run is started again.

Reading every image takes minutes for a large set; files whose sizes and times of change are as they
were are not read again. The times are compared for equality only, so that no clock need be right.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import ml_collections

from stlm_jax import __version__
from stlm_jax.data.problems import Problem
from stlm_jax.data.records import File, Record
from stlm_jax.data.tfds_file import StoredFile
from stlm_jax.runtime.files import read_json, write_json

_TYPES = {"kind": str, "text": str, "fatal": bool, "training": bool}  # of a `Problem`


@dataclass(frozen=True)
class Checked:
    """A check.

    Attributes:
        of: tells what was checked; '' where that cannot be told.
        problems: what was found in the files.
    """

    of: str
    problems: list[Problem]

    def store(self, path: Path) -> None:
        """Writes it; without `of` it would be of no use, and is not."""
        if self.of:
            write_json(path, {"of": self.of, "problems": [asdict(p) for p in self.problems]})


def known_problems(path: Path, of: str) -> list[Problem] | None:
    """What was found in the same files; None where there is no such check, or it is damaged."""
    try:
        known = read_json(path)
        problems = [Problem(**problem) for problem in known["problems"]]
        is_whole = all(
            isinstance(getattr(problem, name), kind)
            for problem in problems
            for name, kind in _TYPES.items()
        )
        return problems if is_whole and known["of"] == of else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def identity(config: ml_collections.ConfigDict, records: Iterable[Record]) -> str:
    """Tells files, in the state that they are in, and what matters of how they are checked.

    Empty where there are files without a size and a time of their own.
    """
    data = config.data
    digest = hashlib.sha256(
        repr((__version__, data.mask, data.on_error, config.train.batch_size)).encode()
    )
    for record in records:
        files = [record.image, *record.masks]
        states = [_state(file) for file in files]
        if not all(states):
            return ""
        known = (record.category, record.split, record.defect, record.label, files, states)
        digest.update(repr(known).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _state(file: File) -> tuple[int, int, int] | None:
    """Size, time of change, and that of the system, which no program sets: a copy keeps the others.

    A bucket has the first two.
    """
    if isinstance(file, StoredFile):
        return None
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, getattr(stat, "st_ctime_ns", 0)
