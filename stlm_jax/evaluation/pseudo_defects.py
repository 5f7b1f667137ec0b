"""Defects drawn into good images, of other kinds than those that training draws.

Training blends a photograph in where Perlin noise is large. Here there is no Perlin noise and no
photograph: pieces of the image itself are moved (as by CutPaste, Li et al. 2021), lines are drawn,
smooth blobs blurred, lit or tinted, the image is twisted in a place, and computed textures fill
polygons. All is drawn by a generator that is given, in NumPy, SciPy and PIL.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from stlm_jax.evaluation.pseudo_textures import texture

KINDS = ("patch", "scar", "stroke", "blob", "twist", "texture")
VISIBLE = 20  # grey levels, in the channel that changes most, that a person sees
_SURE = "stroke"  # of the kinds, the one that shows on any image
_SHARE_SEEN = 0.5  # of a mask's pixels, that changed visibly
_LARGEST = 0.2  # share of the image
_ATTEMPTS = 8
_EIGHT = np.ones((3, 3), bool)  # neighbours
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


class Defect(NamedTuple):
    """A good image with a defect.

    Attributes:
        pixels: (H, W, 3) uint8; outside `mask` those of the good image.
        mask: (H, W) bool.
        kind: of `KINDS`.
    """

    pixels: np.ndarray
    mask: np.ndarray
    kind: str


class _Change(NamedTuple):
    """What a kind of defect makes of an image: other pixels, (H, W, 3), and where, (H, W) 0..1."""

    pixels: np.ndarray
    weight: np.ndarray


def add_defect(image: np.ndarray, kind: str, rng: np.random.Generator) -> Defect:
    """A defect of a kind in a good image; of another where this kind would not be seen there.

    The mask is where pixels changed by `VISIBLE` levels, gaps of a few pixels between them closed;
    every other pixel is put back, so that nothing changes outside it.

    Args:
        image: (H, W, 3) uint8.
        kind: of `KINDS`.
        rng: all is drawn by it.
    """
    for name in (kind,) * _ATTEMPTS + (_SURE,) * 100:
        change = _DRAW[name](image.astype(np.float32), rng)
        weight = change.weight[..., None]
        mixed = image + weight * (change.pixels - image)
        after = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        mask, seen = _changed(image, after)
        large_enough = mask.sum() >= _least(image)
        if large_enough and mask.mean() <= _LARGEST and seen[mask].mean() >= _SHARE_SEEN:
            return Defect(np.where(mask[..., None], after, image), mask, name)
    raise AssertionError("no line shows in the image")  # one of 60 levels more or less does


def _changed(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a change, and the pixels that changed visibly."""
    difference = np.abs(after.astype(np.int16) - before).max(axis=-1)
    seen = difference >= VISIBLE
    radius = max(1, round(min(before.shape[:2]) / 128))
    grid = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1])
    closed = ndimage.binary_closing(np.pad(seen, radius), grid <= radius)
    inside = closed[radius:-radius, radius:-radius] & (difference > 0) | seen
    regions, count = ndimage.label(inside, _EIGHT)
    sizes = ndimage.sum_labels(inside, regions, np.arange(count + 1))
    return (sizes >= _least(before))[regions] & inside, seen


def _least(image: np.ndarray) -> int:
    """Pixels of a region that count: fewer are a speck."""
    return max(9, round(2e-4 * image.shape[0] * image.shape[1]))


def _moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image, mirrored or not, with another part of it in every place, lit otherwise."""
    height, width = image.shape[:2]
    shift = [int(side * rng.uniform(0.25, 0.75)) for side in (height, width)]
    moved = np.roll(image, shift, (0, 1))[:: rng.choice((1, -1)), :: rng.choice((1, -1))]
    gain = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.25, 1.6)
    return moved * (gain * rng.uniform(0.85, 1.15, 3))


def _bar(image: np.ndarray, rng: np.random.Generator, length: float, breadth: float) -> np.ndarray:
    """1 in a rectangle of sides in pixels, at any place and angle."""
    rows, columns = _from_centre(image, rng)
    angle = rng.uniform(0, np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    return ((np.abs(along) <= length / 2) & (np.abs(across) <= breadth / 2)).astype(np.float32)


def _from_centre(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows and columns, (2, H, W), counted from a point away from the edges."""
    height, width = image.shape[:2]
    centre = rng.uniform(0.12, 0.88, 2) * (height, width)
    return np.mgrid[:height, :width] - centre[:, None, None]


def _patch(image: np.ndarray, rng: np.random.Generator) -> _Change:
    side = min(image.shape[:2])
    root, aspect = side * np.sqrt(rng.uniform(0.004, 0.03)), np.exp(rng.uniform(-0.5, 0.5))
    return _Change(_moved(image, rng), _bar(image, rng, root * aspect, root / aspect))


def _scar(image: np.ndarray, rng: np.random.Generator) -> _Change:
    side = min(image.shape[:2])
    length, breadth = side * rng.uniform(0.12, 0.3), side * rng.uniform(0.02, 0.04)
    return _Change(_moved(image, rng), _bar(image, rng, length, max(3.0, breadth)))


def _stroke(image: np.ndarray, rng: np.random.Generator) -> _Change:
    """A bent line, dark on what is light and light on what is dark."""
    height, width = image.shape[:2]
    side = min(height, width)
    turns = np.cumsum(rng.normal(0, 0.25, 20)) + rng.uniform(0, 2 * np.pi)
    step = side * rng.uniform(0.15, 0.45) / len(turns)
    start = rng.uniform(0.2, 0.8, 2) * (width, height)
    points = start + step * np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=-1), axis=0)
    line = Image.new("L", (width, height))
    breadth = max(2, round(side * rng.uniform(0.01, 0.025)))
    ImageDraw.Draw(line).line([tuple(p) for p in points], 255, breadth, joint="curve")
    weight = ndimage.gaussian_filter(np.asarray(line, np.float32) / 255, 0.5)
    local = (image @ _LUMA)[weight > 0.5]
    dark = local.size > 0 and local.mean() > 110
    colour = (rng.uniform(0, 40) if dark else rng.uniform(190, 255)) + rng.uniform(-15, 15, 3)
    return _Change(np.broadcast_to(colour, image.shape), weight * rng.uniform(0.7, 1.0))


def _blob(image: np.ndarray, rng: np.random.Generator) -> _Change:
    """A smooth spot that is blurred, lighter, darker or tinted."""
    rows, columns = _from_centre(image, rng)
    side = min(image.shape[:2])
    angle, radius = np.arctan2(rows, columns), side * rng.uniform(0.04, 0.1)
    for waves in (2, 3, 4):
        radius = radius * (1 + rng.uniform(0, 0.25) * np.cos(waves * angle + rng.uniform(0, 6.3)))
    weight = np.clip(2 * (1 - np.hypot(rows, columns) / radius), 0, 1)
    effect = int(rng.integers(3))
    if effect == 0:
        blurred = [ndimage.gaussian_filter(image[..., c], 0.02 * side) for c in range(3)]
        return _Change(np.stack(blurred, axis=-1), weight)
    sign = rng.choice((-1.0, 1.0))
    level = sign * rng.uniform(40, 90)
    tint = np.full(3, level) if effect == 1 else level * rng.permutation([1.0, 0.2, -0.6])
    return _Change(image + tint, weight)


def _twist(image: np.ndarray, rng: np.random.Generator) -> _Change:
    """The image turned about a point, most in the middle."""
    rows, columns = _from_centre(image, rng)
    radius = min(image.shape[:2]) * rng.uniform(0.07, 0.14)
    distance = np.hypot(rows, columns) / radius
    angle = rng.choice((-1, 1)) * rng.uniform(1.2, 3.0) * np.clip(1 - distance, 0, 1) ** 0.7
    turned = (
        rows * np.cos(angle) - columns * np.sin(angle) - rows,
        rows * np.sin(angle) + columns * np.cos(angle) - columns,
    )
    places = np.mgrid[: image.shape[0], : image.shape[1]] + np.stack(turned)
    bent = [
        ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(3)
    ]
    return _Change(np.stack(bent, axis=-1), (distance < 1).astype(np.float32))


def _texture(image: np.ndarray, rng: np.random.Generator) -> _Change:
    """A computed texture in a polygon, opaque or half so."""
    height, width = image.shape[:2]
    corners = int(rng.integers(4, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = min(height, width) * rng.uniform(0.05, 0.13, corners)
    centre = rng.uniform(0.15, 0.85, 2) * (width, height)
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    polygon = Image.new("L", (width, height))
    ImageDraw.Draw(polygon).polygon([tuple(p) for p in points], 1)
    weight = np.asarray(polygon, np.float32) * rng.uniform(0.5, 1.0)
    return _Change(texture(rng, height, width), weight)


_DRAW = {
    "patch": _patch,
    "scar": _scar,
    "stroke": _stroke,
    "blob": _blob,
    "twist": _twist,
    "texture": _texture,
}
