"""Two texture categories of the demo: crops of photographs that scikit-image ships, and defects.

The left part of each photograph serves training, the right part testing; no pixel is in both.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from stlm_jax.data.demo import draw
from stlm_jax.data.demo.draw import Array
from stlm_jax.data.photographs import photograph_file

TINTS = {"brick": (1.16, 0.95, 0.84), "gravel": (1.02, 1.0, 0.95)}
# Columns [start, stop) of the 512 px wide photographs that each split may use.
REGIONS = {"train": (0, 316), "test": (320, 512)}
CROP_SIZES = (160, 186)  # pixels, smallest and largest side; enlarged to the size of the image
INSULATION = np.asarray(  # copper, red, blue, yellow, black
    [(0.74, 0.45, 0.28), (0.72, 0.17, 0.15), (0.16, 0.32, 0.68), (0.85, 0.7, 0.16), (0.1,) * 3],
    np.float32,
)

Box = tuple[int, int, int, int]
Defect = Callable[[np.random.Generator, Array], tuple[Array, Array]]


def crop_box(split: str, rng: np.random.Generator) -> Box:
    """A random square (left, top, right, bottom) of a photograph inside the region of `split`."""
    side = int(rng.integers(CROP_SIZES[0], CROP_SIZES[1] + 1))
    start, stop = REGIONS[split]
    left = int(rng.integers(start, stop - side + 1))
    top = int(rng.integers(0, 512 - side + 1))
    return left, top, left + side, top + side


@lru_cache
def _photograph(category: str) -> Image.Image:
    with Image.open(photograph_file(f"{category}.png")) as image:
        return image.convert("L")


def scene(category: str, split: str, rng: np.random.Generator, size: int) -> Array:
    """A normal piece of the texture, float32 (size, size, 3), 0..1."""
    box = crop_box(split, rng)
    crop = _photograph(category).resize((size, size), Image.Resampling.BICUBIC, box=box)
    grey = np.asarray(crop, np.float32) / 255
    if rng.random() < 0.5:
        grey = grey[:, ::-1]
    return grey[..., None] * np.asarray(TINTS[category], np.float32)


def _place(rng: np.random.Generator, size: int, margin: float) -> Array:
    return rng.uniform(margin, size - 1 - margin, 2)


def crack(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """A jagged, tapering crack, often with a branch: dark inside, one lip catching the light."""
    size = base.shape[0]
    x, y = draw.grid(size)
    trunk = draw.walk(rng, _place(rng, size, 40), rng.uniform(45, 80), 5.0, 0.14)
    paths = [trunk]
    if rng.random() < 0.6:
        joint = trunk[len(trunk) // 2]
        branch = draw.walk(rng, joint, rng.uniform(18, 32), 5.0, 0.14)
        paths.append(branch - branch[0] + joint)
    width = rng.uniform(2.4, 3.8)
    distance = np.full((size, size), np.inf, np.float32)
    for path in paths:
        jagged = path + rng.normal(0, 1.3, path.shape)
        to_path, along = draw.distance_to_polyline(x, y, jagged)
        wobble = 0.4 * draw.smooth_noise(rng, size, 1.2)
        distance = np.minimum(distance, to_path - 0.5 * width * (1 - 0.5 * along) + wobble)
    groove = draw.coverage(distance)
    lip = draw.relief(-gaussian_filter(groove, 0.7), np.deg2rad(-120))
    dark = rng.uniform(0.45, 0.62)
    shade = (1 - dark * groove) * (1 + 0.25 * np.clip(lip, 0, None) * (1 - groove))
    return base * shade[..., None], draw.coverage(distance - 1.0)


def _stain(
    rng: np.random.Generator, base: Array, radius: tuple[float, float], darkness: float, tint: Array
) -> tuple[Array, Array]:
    size = base.shape[0]
    x, y = draw.grid(size)
    distance = draw.distance_to_blob(rng, x, y, _place(rng, size, 36), rng.uniform(*radius), 0.22)
    distance = distance + 1.2 * draw.smooth_noise(rng, size, 3.0)
    area = draw.coverage(distance, 5.0)
    mottle = 1 + 0.14 * draw.smooth_noise(rng, size, 5.0)
    rim = 0.25 * np.exp(-0.5 * ((distance + 2.5) / 2.0) ** 2)
    absorbed = np.clip(darkness * area * (mottle + rim), 0, 0.9)
    return base * (1 - absorbed[..., None] * tint), area


def damp_stain(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """A spill that soaked in: the texture stays visible under it, darker at the rim."""
    tint = np.asarray([0.85, 1.0, 1.05], np.float32)
    return _stain(rng, base, (12, 23), rng.uniform(0.28, 0.42), tint)


def oil(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """A dark, slightly brown oil spot."""
    tint = np.asarray([0.92, 1.0, 1.1], np.float32)
    return _stain(rng, base, (13, 24), rng.uniform(0.42, 0.58), tint)


def chip(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """A flake broken off the surface: a shallow pit of paler, grainy, fresh material."""
    size = base.shape[0]
    x, y = draw.grid(size)
    center = _place(rng, size, 28)
    distance = draw.distance_to_blob(rng, x, y, center, rng.uniform(10, 17), 0.16)
    distance = distance + 0.5 * draw.smooth_noise(rng, size, 1.2)
    area = draw.coverage(distance)
    floor = 0.45 * draw.smooth_noise(rng, size, 1.4) + 0.8 * draw.smooth_noise(rng, size, 3.0)
    depth = np.clip(-distance, 0, 4.0) + 0.6 * floor * area
    light = 1 + 0.16 * draw.relief(-depth, np.deg2rad(-120))
    inside = np.hypot(x - center[0], y - center[1]) < 18
    level = np.median(base[inside], axis=0) * rng.uniform(1.12, 1.34)
    pit = level * (light * (1 + 0.05 * draw.smooth_noise(rng, size, 0.7)))[..., None]
    return base + area[..., None] * (pit - base), area


def wire(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """A bent piece of insulated wire on the stones, with the shadow that it casts.

    Its colour tells it from the dry stalks that lie between the stones in the photograph.
    """
    size = base.shape[0]
    x, y = draw.grid(size)
    path = draw.walk(rng, _place(rng, size, 36), rng.uniform(42, 75), 4.0, 0.16)
    radius = rng.uniform(1.9, 2.7)
    distance, _ = draw.distance_to_polyline(x, y, path)
    to_shadow, _ = draw.distance_to_polyline(x, y, path + np.asarray([1.6, 2.2]))
    body = draw.coverage(distance - radius)
    shadow = 0.45 * draw.coverage(to_shadow - radius, 2.0) * (1 - body)
    roundness = np.sqrt(np.clip(1 - (distance / (radius + 0.5)) ** 2, 0, 1))
    colour = INSULATION[rng.integers(len(INSULATION))] * np.float32(rng.uniform(0.85, 1.15))
    insulation = colour * (0.4 + 0.6 * roundness)[..., None]
    result = base * (1 - shadow)[..., None]
    result = result + body[..., None] * (insulation - result)
    return result, (np.maximum(body, shadow) > 0.04).astype(np.float32)


def bare_patch(rng: np.random.Generator, base: Array) -> tuple[Array, Array]:
    """Stones missing: fine sand shows, darker where the stones around keep the light off."""
    size = base.shape[0]
    x, y = draw.grid(size)
    distance = draw.distance_to_blob(rng, x, y, _place(rng, size, 36), rng.uniform(13, 22), 0.25)
    distance = distance + 2.2 * draw.smooth_noise(rng, size, 3.5)
    area = draw.coverage(distance, 1.5)
    grain = 0.10 * draw.smooth_noise(rng, size, 0.8) + 0.06 * draw.smooth_noise(rng, size, 2.5)
    occlusion = 1 - 0.5 * np.exp(np.minimum(distance, 0) / 3.0)
    sand = np.median(base, axis=(0, 1)) * np.asarray([1.0, 0.95, 0.88]) * rng.uniform(0.85, 1.05)
    floor = sand * ((1 + grain) * occlusion)[..., None]
    return base + area[..., None] * (floor - base), area


DEFECTS: dict[str, dict[str, Defect]] = {
    "brick": {"chip": chip, "crack": crack, "stain": damp_stain},
    "gravel": {"bare_patch": bare_patch, "oil": oil, "wire": wire},
}
