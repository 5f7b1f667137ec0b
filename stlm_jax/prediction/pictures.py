"""The files that are written of a map, in the geometry of its image."""

import io
from pathlib import Path

import numpy as np

from stlm_jax.data.images import ImageError, read_image
from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.encode import encode
from stlm_jax.drawing.overlay import MapPictures, in_16_bits
from stlm_jax.prediction.naming import MAPS, OVERLAY
from stlm_jax.prediction.options import NPY, PNG16
from stlm_jax.runtime.files import write_atomically


def map_file(values: np.ndarray, kind: str) -> bytes:
    """A map (H, W) float32 as a file: 16-bit PNG of what lies in 0..1, or all of it."""
    if kind == PNG16:
        return encode(in_16_bits(values))
    if kind == NPY:
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        return buffer.getvalue()
    return encode(values, "TIFF")


def clear(folder: Path) -> None:
    """Removes what a process that was killed has left half written in an image's folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_map(folder: Path, values: np.ndarray, kind: str) -> Path:
    """Writes a map into a folder, whole or not at all; returns its path."""
    return write_atomically(folder / MAPS[kind], map_file(values, kind))


def write_overlay(folder: Path, values: np.ndarray, image: Path, depth: str, scale: Scale) -> Path:
    """Writes a map laid over its image, which is read again: it may be large."""
    pixels = read_image(image, None, depth)
    if pixels.shape[:2] != values.shape:
        raise ImageError(f"{image} was changed while it was judged")
    pictures = MapPictures(pixels, scale)
    pictures.add(0, values)
    return write_atomically(folder / OVERLAY, encode(pictures.finished()["overlay"]))
