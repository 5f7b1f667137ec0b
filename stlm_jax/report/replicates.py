"""`replicates.npz`: metrics on drawn sets of images, by which runs are compared set by set."""

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlm_jax.evaluation.results import CategoryResult, ImageResult
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import open_atomically
from stlm_jax.runtime.paths import path_of

_IMAGES, _DIGEST = "images", "digest"  # beside the metrics of a category


class Replicates(NamedTuple):
    """A category's metrics on drawn sets of its test images.

    Attributes:
        images: how many there are.
        digest: of their names and labels; where two runs share it, replicate b is of one set.
        metrics: (B,) float32 fractions of 1 by metric as in `metrics.json`, nan where undefined.
    """

    images: int
    digest: str
    metrics: dict[str, np.ndarray]


def digest_of(images: Iterable[ImageResult]) -> str:
    """64 hexadecimal digits of names and labels in the order of the split."""
    lines = [f"{int(image.label)} {image.name}\n" for image in images]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_replicates(path: str | os.PathLike, categories: Sequence[CategoryResult]) -> Path:
    """Writes the file, arrays named `category/metric` in float32; its path."""
    arrays: dict[str, np.ndarray] = {}
    for category in categories:
        arrays[f"{category.category}/{_IMAGES}"] = np.array(len(category.images))
        arrays[f"{category.category}/{_DIGEST}"] = np.array(digest_of(category.images))
        for name, values in category.replicates.items():
            arrays[f"{category.category}/{name}"] = values.astype(np.float32)
    with open_atomically(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path_of(path)


def read_replicates(path: str | os.PathLike) -> dict[str, Replicates]:
    """What `write_replicates` wrote, by category."""
    again = "evaluate the run again (--mode=evaluate)"
    try:
        with np.load(io.BytesIO(path_of(path).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, values in arrays.items():
            category, _, metric = name.rpartition("/")
            if values.ndim != (metric not in (_IMAGES, _DIGEST)):
                raise ValueError(f"{name} has {values.ndim} axes")
            found.setdefault(category, {})[metric] = values
        return {
            category: Replicates(int(of.pop(_IMAGES)), str(of.pop(_DIGEST)), of)
            for category, of in found.items()
        }
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {again}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {again}") from error
