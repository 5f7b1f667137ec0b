"""A large image cut into overlapping tiles, and their maps blended into one, band by band."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from stlm_jax.data.geometry import Box

OVERLAP = 0.25  # of a tile's side, at least


def tile_starts(length: int, tile: int) -> list[int]:
    """First pixels of equal tiles that cover `length`, evenly spaced; [0] where one is enough."""
    if length <= tile:
        return [0]
    stride = tile - math.ceil(tile * OVERLAP)
    count = math.ceil((length - tile) / stride) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def tiles(height: int, width: int, tile: int) -> list[Box]:
    """The tiles of an image, row by row; none is larger than the image."""
    across, down = min(tile, width), min(tile, height)
    return [
        Box(left, top, left + across, top + down)
        for top in tile_starts(height, tile)
        for left in tile_starts(width, tile)
    ]


def blend_weights(length: int, tile: int) -> np.ndarray:
    """What a line of each tile counts for, (tiles, min(tile, length)) float32.

    Weights rise linearly from a tile's borders over `OVERLAP` and sum to 1 in every pixel.
    """
    starts, extent = tile_starts(length, tile), min(tile, length)
    to_border = np.minimum(np.arange(extent), np.arange(extent)[::-1]) + 0.5
    ramp = np.minimum(to_border / (tile * OVERLAP), 1.0)
    total = np.zeros(length)
    for start in starts:
        total[start : start + extent] += ramp
    return np.stack([ramp / total[s : s + extent] for s in starts]).astype(np.float32)


def blended_bands(
    height: int, width: int, tile: int, maps: Iterable[np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Joins the maps of all `tiles`, keeping one row of tiles in memory.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        tile: side of a tile in pixels.
        maps: of every tile in the order of `tiles`, each of the tile's size: (h, w, C) float32.

    Yields:
        The number of a first row, and that and the rows below it, (rows, width, C) float32; the
        bands follow each other and together are the map.
    """
    tops, lefts = tile_starts(height, tile), tile_starts(width, tile)
    down, across = blend_weights(height, tile), blend_weights(width, tile)
    extent = down.shape[1]
    following = iter(maps)
    band: np.ndarray | None = None
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            values = next(following)
            if band is None:
                band = np.zeros((extent, width, values.shape[-1]), np.float32)
            weights = down[row][:, None, None] * across[column][None, :, None]
            band[:, left : left + across.shape[1]] += values * weights
        assert band is not None
        done = (tops[row + 1] if row + 1 < len(tops) else height) - top
        yield top, band[:done].copy()
        band[: extent - done] = band[done:].copy()
        band[extent - done :] = 0
