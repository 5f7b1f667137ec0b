"""The pictures that prediction writes of an image: its map, and the map laid over it."""

from pathlib import Path

import numpy as np

from stlm_jax.drawing.colours import ABOVE_THRESHOLD, OUTLINE, Scale, blend_map, outline_of
from stlm_jax.drawing.encode import encode
from stlm_jax.runtime.files import write_atomically

ENDINGS = {"map": ".map.png", "overlay": ".overlay.png"}  # of the pictures' names
_ROWS = 256  # handled at once: temporary arrays are much larger than the pictures
_FULL = 65535  # of a map's file, where the map is 1


def in_16_bits(values: np.ndarray) -> np.ndarray:
    """A map of any shape as uint16, 65535 where it is 1; values beyond 0..1 are cut."""
    return np.rint(np.clip(values, 0.0, 1.0) * _FULL).astype(np.uint16)


class MapPictures:
    """A map's pictures, made band by band.

    Two bytes a pixel are kept beside the image, which becomes the overlay in place.
    """

    def __init__(self, image: np.ndarray, scale: Scale):
        """`image` is (H, W, 3) uint8; it is written to."""
        self._overlay, self._scale = image, scale
        self._map = np.zeros(image.shape[:2], np.uint16)

    def add(self, first: int, values: np.ndarray) -> None:
        """Takes the map's rows from `first` on, (rows, W) float32; values beyond 0..1 are cut."""
        for start in range(0, len(values), _ROWS):
            band = np.clip(values[start : start + _ROWS], 0.0, 1.0)
            rows = slice(first + start, first + start + len(band))
            self._overlay[rows] = blend_map(self._overlay[rows], band, self._scale)
            self._map[rows] = in_16_bits(band)

    def save(self, directory: Path, name: str) -> dict[str, str]:
        """Writes `<name>.map.png`, 16-bit grey, 65535 where the map is 1, and `<name>.overlay.png`.

        `name` may have folders in it, which are made. Returns the paths as `map` and `overlay`.
        """
        written = {}
        for kind, pixels in self.finished().items():
            path = write_atomically(directory / f"{name}{ENDINGS[kind]}", encode(pixels))
            written[kind] = str(path)
        return written

    def finished(self) -> dict[str, np.ndarray]:
        """Once all rows are there: `map`, (H, W) uint16, and `overlay`, (H, W, 3) uint8."""
        self._outline()
        return {"map": self._map, "overlay": self._overlay}

    def _outline(self) -> None:
        """Draws the edge of what is above the threshold, once all rows are there."""
        if self._scale.threshold is None:
            return
        for start in range(0, len(self._map), _ROWS):
            # Rows around the band, so that it has the edges that the whole map would give it.
            begin, end = max(0, start - OUTLINE), start + _ROWS + OUTLINE
            edge = outline_of(self._map[begin:end] > self._scale.threshold * _FULL)
            inner = edge[start - begin : start - begin + _ROWS]
            self._overlay[start : start + _ROWS][inner] = ABOVE_THRESHOLD
