"""The teacher feature store: a folder of features that any number of runs read.

STORE/store.json                   of what teacher, at what size, by what generator
STORE/CATEGORY/category.json       how its images are turned
STORE/CATEGORY/DIGEST.array_record the features of the image with these pixels, bfloat16

A file holds one record a slot, both levels one after the other. Where images are turned, every
variant has a clean image of its own: slots 0..K-1 are the clean ones, K..2K-1 the pseudo-anomalous
ones. Elsewhere slot 0 is the clean image, 1..K are the variants. A file is whole or absent; its
chunks carry hashes, so damage is noticed.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.files import read_json, write_json
from stlm_jax.runtime.paths import Staged, local_copy

FORMAT = 1
DESCRIPTION, CATEGORY, SUFFIX = "store.json", "category.json", ".array_record"
COMMAND = "python -m stlm_jax.commands.teacher_store"
_DTYPE = np.dtype(ml_dtypes.bfloat16)
_READ = "readahead_buffer_size:0,max_parallelism:0"  # one record at a time, in this thread
_WRITE = "group_size:1,uncompressed"  # a record is read without its neighbours


def pixel_digest(pixels: np.ndarray) -> str:
    """What an image is called in the store: of its pixels, (S, S, 3) uint8."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:32]


def place_of(digest: str) -> int:
    """The number that an image's keys are folded with, of 32 bits."""
    return int(digest[:8], 16)


class FeatureStore:
    """A store in a folder.

    Attributes:
        folder: the store's.
        description: what `store.json` says.
        variants: pseudo-anomalous ones an image.
        shape: of a slot's features, (levels, h, w, C).
    """

    def __init__(self, folder: Path, description: dict[str, Any]):
        """The store with such a description; nothing is read or written."""
        self.folder, self.description = folder, description
        self.variants: int = description["variants"]
        self.shape: tuple[int, ...] = tuple(description["shape"])

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """The store that lies in a folder."""
        path = folder / DESCRIPTION
        content = _read_object(path)
        if content is None:
            raise UserError(
                f"config.teacher.store: {folder} holds no features, {DESCRIPTION} is missing: "
                f"write them with {COMMAND}"
            )
        if content.get("format") != FORMAT:
            raise UserError(
                f"{path}: a store of format {content.get('format')}, this stlm_jax reads {FORMAT}: "
                f"write another with {COMMAND}"
            )
        try:
            return cls(folder, content)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}: damaged ({error!r}): restore it, or delete {folder}"
            ) from None

    def identity(self) -> str:
        """A digest of the description, which tells this store from another."""
        text = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def slots(self, rotates: bool) -> int:
        """Records a file."""
        return 2 * self.variants if rotates else 1 + self.variants

    def slots_of(self, number: int, rotates: bool) -> tuple[int, int]:
        """The slots of the clean and of the pseudo-anomalous image of variant `number`."""
        return (number, self.variants + number) if rotates else (0, 1 + number)

    def slot_bytes(self) -> int:
        """Bytes of one record."""
        return int(np.prod(self.shape)) * _DTYPE.itemsize

    def path(self, category: str, digest: str) -> Path:
        """The file of an image."""
        return self.folder / category / f"{digest}{SUFFIX}"

    def digests(self, category: str) -> set[str]:
        """The images of a category that are there."""
        return {path.stem for path in (self.folder / category).glob(f"*{SUFFIX}")}

    def policy(self, category: str) -> str | None:
        """How the images of a category were turned; None where there are none."""
        content = _read_object(self.folder / category / CATEGORY)
        return None if content is None else content.get("rotation")

    def begin(self, category: str, policy: str) -> None:
        """Makes a category's folder, or what a killed writer left there ready to go on with."""
        write_json(self.folder / category / CATEGORY, {"rotation": policy})
        for leftover in (self.folder / category).glob(f".*{SUFFIX}.tmp"):
            leftover.unlink()

    def write(self, category: str, digest: str, records: Iterable[np.ndarray]) -> None:
        """Writes the features of an image, one slot after the other, each of `shape`."""
        from array_record.python import array_record_module

        path = self.path(category, digest)
        with Staged(path.parent) as staged:
            unfinished = staged.path / f".{path.name}.tmp"
            try:
                writer = array_record_module.ArrayRecordWriter(str(unfinished), _WRITE)
                for record in records:
                    writer.write(np.ascontiguousarray(record, _DTYPE).tobytes())
                writer.close()
                with open(unfinished, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(unfinished, staged.path / path.name)
            except (RuntimeError, OSError) as error:  # the former is the library's: a full disk
                raise UserError(
                    f"{path}: cannot be written ({first_line(error)}): what is there is whole, "
                    "free some space and run the same command again to go on"
                ) from error
            finally:
                unfinished.unlink(missing_ok=True)

    def read(self, category: str, digest: str, slots: list[int]) -> list[np.ndarray]:
        """The features in some slots of an image's file, each of `shape`."""
        from array_record.python import array_record_module

        path = local_copy(self.path(category, digest))
        if not path.is_file():
            path = self.path(category, digest)
            raise UserError(f"{path} is gone: write it again with {COMMAND}")
        try:
            reader = array_record_module.ArrayRecordReader(str(path), _READ)
            try:
                records = reader.read(slots)
            finally:
                reader.close()
            return [np.frombuffer(record, _DTYPE).reshape(self.shape) for record in records]
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(
                f"{path}: damaged ({first_line(error)}): delete it and run {COMMAND} again"
            ) from error


def _read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None where there is no file."""
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("no object")
        return content
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}): restore it, or delete the folder") from None
