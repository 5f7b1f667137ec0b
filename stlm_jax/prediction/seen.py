"""Which images were judged, of any number of them, on disk."""

import hashlib
import os
import sqlite3
from typing import NamedTuple

from stlm_jax.prediction.sources import Source

BEGUN, JUDGED, FAILED = "begun", "judged", "failed"
ABSENT = "absent"  # the stamp of a file that is not there


class Key(NamedTuple):
    """An image: a file at a time. Written over by another, a file is another image.

    Attributes:
        path: a digest of its location.
        stamp: size and time of the file.
    """

    path: str
    stamp: str

    @classmethod
    def of(cls, source: Source) -> "Key":
        """An image as it lies there."""
        path = hashlib.sha256(os.fsencode(source.location)).hexdigest()[:32]
        try:
            known = source.path.stat()
        except OSError:  # whoever reads it says so
            return cls(path, ABSENT)
        return cls(path, f"{known.st_size}:{known.st_mtime_ns}")

    @classmethod
    def parse(cls, text: str) -> "Key":
        """The key that `str` gave."""
        path, _, stamp = text.partition("-")
        return cls(path, stamp)

    def __str__(self) -> str:
        return f"{self.path}-{self.stamp}"


class Seen:
    """The state of every image, in a temporary file that SQLite deletes."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")  # nobody goes on with this file
        self._rows.execute(
            "CREATE TABLE seen (path TEXT, stamp TEXT, state TEXT, PRIMARY KEY (path, stamp)) "
            "WITHOUT ROWID"
        )

    def state(self, key: Key) -> str | None:
        """`begun`, `judged`, `failed`; None of an image that is new."""
        question = "SELECT state FROM seen WHERE path = ? AND stamp = ?"
        row = self._rows.execute(question, key).fetchone()
        return row and row[0]

    def set(self, key: Key, state: str) -> None:
        """Notes the state of an image."""
        self._rows.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (*key, state))

    def forget(self, key: Key) -> None:
        """Has an image be new again."""
        self._rows.execute("DELETE FROM seen WHERE path = ? AND stamp = ?", key)

    def others(self, key: Key) -> int:
        """How many other images there were at the path of one that were not refused."""
        question = "SELECT COUNT(*) FROM seen WHERE path = ? AND stamp != ? AND state != ?"
        return self._rows.execute(question, (*key, FAILED)).fetchone()[0]

    def close(self) -> None:
        """Deletes it."""
        self._rows.close()
