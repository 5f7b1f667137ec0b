"""Image files inside prepared TFDS data sets, read one by one without TensorFlow."""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import in_bucket, path_of

INFO = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class StoredFile:
    """An image file of an example, as it was before it was stored.

    Attributes:
        folder: of the prepared data set, with its version.
        split: name of the split.
        index: of the example in the split.
        path: what the file was called, relative to the raw data.
        mask: which of the example's `masks`; None for its `image`.
    """

    folder: str
    split: str
    index: int
    path: str
    mask: int | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.path).stem

    def is_file(self) -> bool:
        """Whether it is there: a prepared data set is whole."""
        return True

    def read_bytes(self) -> bytes:
        """The file's content."""
        example = examples(self.folder, self.split)[self.index]
        return example["image"] if self.mask is None else example["masks"][self.mask]

    def __str__(self) -> str:
        return f"{self.folder}: {self.path}"


def version_folder(folder: str) -> str:
    """`folder` itself where it holds a prepared data set, else that of the newest version in it."""
    path = path_of(folder)
    if (path / INFO).exists():
        return str(path)
    versions = [p for p in path.iterdir() if _VERSION.fullmatch(p.name)] if path.is_dir() else []
    prepared = [p for p in versions if (p / INFO).exists()]
    if not prepared:
        raise UserError(f"{folder} holds no data set that TFDS has prepared: check the path")
    return str(max(prepared, key=lambda p: [int(part) for part in p.name.split(".")]))


@functools.cache
def builder(folder: str) -> Any:
    """TFDS's read-only builder of a folder that `version_folder` gave."""
    import tensorflow_datasets as tfds

    if in_bucket(folder):
        raise UserError(
            f"{folder}: ArrayRecord, which a prepared data set is read by, knows local files only: "
            "copy the folder, as by `gcloud storage cp --recursive`"
        )
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"{folder}: not a data set of TFDS ({first_line(error)})") from error


@functools.cache
def examples(folder: str, split: str) -> Sequence[dict[str, Any]]:
    """The examples of a split, by random access; `image` and `masks` are the files' bytes."""
    import tensorflow_datasets as tfds

    class KeepBytes(tfds.decode.SkipDecoding):
        """`SkipDecoding`, which TFDS does not offer for the elements of a sequence."""

        def decode_batch_example_np(self, example):
            return example

    source = builder(folder)
    if "image" not in source.info.features:
        raise UserError(f"{folder}: its examples have no feature called image")
    decoders = {"image": tfds.decode.SkipDecoding()}
    if "masks" in source.info.features:
        decoders["masks"] = KeepBytes()
    try:
        return source.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:
        raise UserError(
            f"{folder}: is not written as ArrayRecord: prepare it with --file_format=array_record"
        ) from None


def images_of(name: str) -> list[StoredFile]:
    """The images of all splits of a prepared data set: its folder, or its name in TFDS's own."""
    import tensorflow_datasets as tfds

    if not {"/", os.sep} & set(name):
        name = os.path.join(tfds.core.constants.DATA_DIR, name)
    folder = version_folder(name)
    splits = builder(folder).info.splits
    return [
        StoredFile(folder, split, index, f"{split}/{index}")
        for split in sorted(splits)
        for index in range(len(examples(folder, split)))
    ]
