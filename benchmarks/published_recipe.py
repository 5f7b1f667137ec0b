"""The published way of making a training sample, on the host: our own re-creation of its steps.

Every sample decodes and resizes an image and a texture with PIL, rotates, computes Perlin noise
over whole arrays with NumPy, rotates, thresholds and blends. Where the published code takes a
slower library (imgaug for the noise's rotation), this takes PIL.
"""

from pathlib import Path

import numpy as np
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR


def sample(image_path: Path, texture_path: Path, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Clean image, pseudo-anomalous image (3, S, S) and mask (1, S, S), float32 in 0..1."""
    rng = np.random.default_rng(seed)
    image = _rotated(_read(image_path, size), rng)
    texture = np.array(_read(texture_path, size))
    cells = 2 ** rng.integers(0, 6, 2)
    noise = Image.fromarray(_perlin_noise(size, cells, rng).astype(np.float32))
    noise = np.array(noise.rotate(rng.uniform(-90, 90), BILINEAR))
    mask = np.where(noise > 0.5, 1.0, 0.0)[..., None]  # (S, S, 1)
    clean = np.array(image).astype(np.float32) / 255
    beta = rng.random() * 0.8
    blended = texture / 255 * mask
    pseudo = clean * (1 - mask) + (1 - beta) * blended + beta * clean * mask
    if rng.random() > 0.5:
        pseudo, mask = clean, np.zeros_like(mask)
    channels_first = (a.transpose(2, 0, 1).astype(np.float32) for a in (clean, pseudo, mask))
    return tuple(map(np.ascontiguousarray, channels_first))


def make(*arguments) -> float:
    """Makes a sample and says how much of it is changed: nothing large leaves the process."""
    return float(sample(*arguments)[2].mean())


def _read(path: Path, size: int) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((size, size), BILINEAR)


def _rotated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image = image.rotate(90 * int(rng.integers(4)))
    return image.rotate(rng.uniform(-5, 5), BILINEAR, fillcolor=(114, 114, 114))


def _perlin_noise(size: int, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    steps = size // cells
    angles = 2 * np.pi * rng.random((cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)
    grid = np.mgrid[0 : cells[0] : 1 / steps[0], 0 : cells[1] : 1 / steps[1]]
    grid = grid.transpose(1, 2, 0) % 1  # (S, S, 2)

    def corner(i: int, j: int) -> np.ndarray:
        part = gradients[i : i + cells[0], j : j + cells[1]]
        spread = part.repeat(steps[0], 0).repeat(steps[1], 1)  # (S, S, 2)
        return ((grid - [i, j]) * spread).sum(-1)

    fade = grid**3 * (grid * (grid * 6 - 15) + 10)
    upper = corner(0, 0) + fade[..., 0] * (corner(1, 0) - corner(0, 0))
    lower = corner(0, 1) + fade[..., 0] * (corner(1, 1) - corner(0, 1))
    return np.sqrt(2) * (upper + fade[..., 1] * (lower - upper))
