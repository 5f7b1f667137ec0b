"""The pictures that prediction writes of an image: its map, and the map laid over it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stlm_jax.files import write_atomically

_COLOUR = np.array([255.0, 0.0, 64.0])
_OPACITY = 0.6  # where the map is 1
_ROWS = 256  # handled at once: temporary arrays are much larger than the pictures


class MapPictures:
    """A map's pictures, made band by band.

    Two bytes a pixel are kept beside the image, which becomes the overlay in place.
    """

    def __init__(self, image: np.ndarray):
        """`image` is (H, W, 3) uint8; it is written to."""
        self._overlay = image
        self._map = np.zeros(image.shape[:2], np.uint16)

    def add(self, first: int, values: np.ndarray) -> None:
        """Take the map's rows from `first` on, (rows, W) float32; values beyond 0..1 are cut."""
        for start in range(0, len(values), _ROWS):
            band = np.clip(values[start : start + _ROWS], 0.0, 1.0)
            rows = slice(first + start, first + start + len(band))
            opacity = _OPACITY * band[..., None]
            mixed = self._overlay[rows] * (1 - opacity) + _COLOUR * opacity
            self._overlay[rows] = np.rint(mixed).astype(np.uint8)
            self._map[rows] = np.rint(band * 65535).astype(np.uint16)

    def save(self, directory: Path, name: str) -> dict[str, str]:
        """Write `<name>_map.png`, 16-bit grey, 65535 where the map is 1, and `<name>_overlay.png`.

        Returns:
            Their paths as `map` and `overlay`.

        Raises:
            OSError: the disk or the permissions refuse.
        """
        written = {}
        for kind, pixels in (("map", self._map), ("overlay", self._overlay)):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            path = write_atomically(directory / f"{name}_{kind}.png", content.getvalue())
            written[kind] = str(path)
        return written
