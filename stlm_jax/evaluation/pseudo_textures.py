"""Textures that are computed, of which no bank that models are trained with can hold one.

A training's bank may hold every photograph there is: of a small folder, and of those that
scikit-image ships, it takes all, and with a teacher's store the store's seed chooses. What is drawn
from no file is apart from all of them.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial

_CONTRAST = 90.0  # grey levels at least, summed over the channels, between two colours


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A texture of two or more colours drawn by `rng`, (height, width, 3) float32 in 0..255."""
    draw: Callable[..., np.ndarray] = (_stripes, _cells, _weave, _speckle)[int(rng.integers(4))]
    return draw(rng, height, width).astype(np.float32)


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours (count, 3), the first two of which differ visibly."""
    colours = rng.uniform(0, 255, (count, 3))
    while np.abs(colours[0] - colours[1]).sum() < _CONTRAST:
        colours[1] = rng.uniform(0, 255, 3)
    return colours


def _axis(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Distance in pixels along a direction of any angle, (height, width)."""
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:height, :width]
    return rows * np.sin(angle) + columns * np.cos(angle)


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A sine between two colours, its lines bent by another."""
    period = rng.uniform(0.02, 0.08) * min(height, width)
    along, across = _axis(rng, height, width), _axis(rng, height, width)
    bend = rng.uniform(0, 1) * np.sin(across / rng.uniform(1, 3) / period)
    share = 0.5 + 0.5 * np.sin(2 * np.pi * along / max(period, 2.0) + bend)
    first, second = _colours(rng, 2)
    return first + share[..., None] * (second - first)


def _cells(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Voronoi cells, each of one of four colours."""
    count = int(rng.integers(200, 800))
    seeds = rng.uniform(0, 1, (count, 2)) * (height, width)
    places = np.mgrid[:height, :width].reshape(2, -1).T
    _, nearest = spatial.cKDTree(seeds).query(places)
    return _colours(rng, 4)[rng.integers(0, 4, count)[nearest]].reshape(height, width, 3)


def _weave(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A checkerboard of any angle, of two colours."""
    cell = max(2.0, rng.uniform(0.01, 0.04) * min(height, width))
    angle = rng.uniform(0, np.pi / 2)
    rows, columns = np.mgrid[:height, :width]
    u = (rows * np.sin(angle) + columns * np.cos(angle)) // cell
    v = (rows * np.cos(angle) - columns * np.sin(angle)) // cell
    return _colours(rng, 2)[((u + v) % 2).astype(int)]


def _speckle(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """White noise, smoothed a little, between two colours."""
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), rng.uniform(0.7, 2.0))
    share = np.clip(0.5 + noise / (3 * noise.std()), 0, 1)
    first, second = _colours(rng, 2)
    return first + share[..., None] * (second - first)
