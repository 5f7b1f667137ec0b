"""`predictions.jsonl`, to which a row is appended when all of it is done, and what it is of.

`predictions.json` beside it names the model and the options, so that a prediction that was killed
goes on with the same ones only.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from stlm_jax.prediction.naming import ABOUT, PREDICTIONS
from stlm_jax.prediction.seen import FAILED, JUDGED, Key, Seen
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import named, parsed_json, read_json, write_json
from stlm_jax.runtime.progress import note

_FORMAT, _VERSION = "stlm_jax predictions", 1
_ANEW = "give another --output=DIR, or begin anew with --overwrite"


class Journal:
    """The rows of an output, as a context.

    Attributes:
        path: the file.
        base: the folder below which the images have short names.
        seen: the images of all rows.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], base: str, overwrite: bool):
        """Opens or begins an output.

        Args:
            folder: the output.
            about: what all rows are made with: JSON values by name.
            base: of an output that is begun; another keeps its own.
            overwrite: whether rows that are there are thrown away.
        """
        self.path, self._about = folder / PREDICTIONS, folder / ABOUT
        self._file: BinaryIO | None = None
        self._overwrite = overwrite
        self.seen = Seen()
        self._content = {"format": _FORMAT, "format_version": _VERSION, "base": base, **about}
        if self.path.exists() and not overwrite:
            self._go_on()
        self.base: str = self._content["base"]

    def open(self, **facts: Any) -> None:
        """Makes it ready for rows; `facts` are what else `predictions.json` says."""
        if self._overwrite:
            self.path.unlink(missing_ok=True)
        write_json(self._about, {**self._content, **facts})
        self._file = open(self.path, "ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.closing(self.seen):
            if self._file is not None:
                with named(self.path), self._file as file:
                    file.flush()
                    os.fsync(file.fileno())

    def append(self, key: Key, row: Mapping[str, Any], now: bool = False) -> None:
        """Adds the row of an image; with `now` it outlasts a power cut at once."""
        # ASCII: no reader is to take a letter of a file's name for the end of the line.
        line = json.dumps({**row, "id": str(key)}, allow_nan=False)
        assert self._file is not None
        with named(self.path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if now:
                os.fsync(self._file.fileno())
        self.seen.set(key, FAILED if "error" in row else JUDGED)

    def _go_on(self) -> None:
        """Takes the rows that are there; a line that was cut when it was written is dropped."""
        before = self._read_about()
        for name, value in self._content.items():
            if name != "base" and before.get(name) != value:
                what = _changed(name, before, value)
                raise UserError(f"{self.path.parent}: its results are of another {what}: {_ANEW}")
        self._content["base"] = before["base"]
        whole = 0
        for number, line in enumerate(self._lines(), 1):
            row = _row_of(line)
            if row is None and line.endswith(b"\n"):
                raise UserError(f"{self.path}: line {number} is damaged: {_ANEW}")
            if row is None or not line.endswith(b"\n"):
                note(f"{self.path}: its last line was cut, that image is judged again")
                os.truncate(self.path, whole)
                return
            self.seen.set(Key.parse(row["id"]), FAILED if "error" in row else JUDGED)
            whole += len(line)

    def _lines(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            yield from file

    def _read_about(self) -> dict[str, Any]:
        try:
            content = read_json(self._about)
            if isinstance(content, dict) and isinstance(content["base"], str):
                return content
            problem = "it is no object"
        except FileNotFoundError:
            problem = "it is missing"
        except (ValueError, KeyError) as error:
            problem = f"it is damaged ({error})"
        raise UserError(f"{self._about}: says what {PREDICTIONS} is of, and {problem}: {_ANEW}")


def _row_of(line: bytes) -> dict[str, Any] | None:
    try:
        row = parsed_json(line)
        return row if isinstance(row["id"], str) and ("error" in row or "score" in row) else None
    except (ValueError, TypeError, KeyError):
        return None


def _changed(name: str, before: Mapping[str, Any], value: Any) -> str:
    old = before.get(name)
    if name != "options" or not isinstance(old, dict):
        return name
    return ", ".join(
        f"--{key}, which was {old.get(key)}, not {new}"
        for key, new in value.items()
        if old.get(key) != new
    )
