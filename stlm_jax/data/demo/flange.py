"""The object category of the demo: a turned steel flange, rendered from a height field.

Defects change the height field before it is lit, so that light falls on them as on the part.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from stlm_jax.data.demo import draw
from stlm_jax.data.demo.draw import Array

SUPERSAMPLE = 2
RADIUS, BORE, PITCH, HOLE, HOLES = 90.0, 25.0, 66.0, 8.5, 6  # pixels of a 256 px image
HUB, HUB_HEIGHT, CHAMFER = 42.0, 4.0, 3.0
ELEVATION = math.radians(52)  # of the light
TURN, SHIFT = 6.0, 5.0  # degrees, pixels: few poses put a sound hole where a misplaced one lies
METAL = np.asarray([0.56, 0.575, 0.60], np.float32)
TABLE = np.asarray([0.20, 0.225, 0.25], np.float32)


@dataclass(frozen=True)
class Flange:
    """A part under the camera, on the supersampled grid, in the part's own pixel coordinates."""

    u: Array  # (S, S), pixels from the axis
    v: Array
    solid: Array  # (S, S), signed distance to the material, negative inside
    carving: Array  # (S, S), pixels by which a defect lowers the surface
    polish: Array  # (S, S), reflectance relative to the untouched metal
    angle: float  # rotation of the part, radians
    light: float  # azimuth of the light, radians
    scale: float  # of the lengths above: 1 for a 256 px image


def _hole_centers() -> Array:
    angle = 2 * np.pi * np.arange(HOLES) / HOLES
    return PITCH * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _solid(u: Array, v: Array, holes: Array) -> Array:
    radius = np.sqrt(u * u + v * v)
    keyway = np.maximum(np.abs(u) - 5.5, np.abs(v + BORE) - 7.0)
    squared = np.full_like(radius, np.inf)
    for x, y in holes.tolist():
        du, dv = u - x, v - y
        np.minimum(squared, du * du + dv * dv, out=squared)
    return np.maximum.reduce([radius - RADIUS, BORE - radius, -keyway, HOLE - np.sqrt(squared)])


def pose(rng: np.random.Generator, size: int) -> Flange:
    """A sound part as a fixture leaves it, turned and shifted a little, under a varied light."""
    turn = math.radians(TURN)
    angle, light = rng.uniform(-turn, turn), math.radians(rng.uniform(-150, -110))
    shift = rng.uniform(-SHIFT, SHIFT, 2).tolist()
    scale = size / 256
    x, y = draw.grid(size * SUPERSAMPLE)
    x = ((x + 0.5) / SUPERSAMPLE - size / 2) / scale - shift[0]
    y = ((y + 0.5) / SUPERSAMPLE - size / 2) / scale - shift[1]
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    zero = np.zeros_like(u)
    return Flange(u, v, _solid(u, v, _hole_centers()), zero, zero + 1, angle, light, scale)


def _height(part: Flange) -> Array:
    rim = np.clip(-part.solid, 0, CHAMFER)
    hub = HUB_HEIGHT * draw.coverage(np.sqrt(part.u**2 + part.v**2) - HUB, 2.5)
    return rim + hub - part.carving


def _downsample(field: Array) -> Array:
    rows = sum(field[i::SUPERSAMPLE] for i in range(1, SUPERSAMPLE)) + field[::SUPERSAMPLE]
    columns = sum(rows[:, j::SUPERSAMPLE] for j in range(1, SUPERSAMPLE)) + rows[:, ::SUPERSAMPLE]
    return columns / SUPERSAMPLE**2


def render(part: Flange, rng: np.random.Generator) -> Array:
    """The scene (size, size, 3) float32: turned metal on a plain table, with a soft shadow.

    The turning marks and the table's grain are drawn from `rng`.
    """
    pixels = SUPERSAMPLE * part.scale  # samples in one unit of length
    dy, dx = np.gradient(_height(part) * pixels)
    shorten = 1 / np.sqrt(dx * dx + dy * dy + 1)
    ground, height = math.cos(ELEVATION), math.sin(ELEVATION)
    towards = (math.cos(part.light) * ground, math.sin(part.light) * ground, height)
    across = dx * towards[0] + dy * towards[1]
    diffuse = np.clip((height - across) * shorten, 0, None) / height
    halfway = math.sqrt(2 + 2 * height)  # length of the light's direction plus the camera's
    highlight = np.clip((height + 1 - across) * shorten / halfway, 0, 1) ** 40
    marks = gaussian_filter(rng.standard_normal(1024, dtype=np.float32), 2.0)
    radius = np.sqrt(part.u**2 + part.v**2)
    turning = (marks / marks.std())[(radius * 6).astype(np.int32) % 1024]
    sheen = np.cos(2 * np.arctan2(part.v, part.u) + 2 * (part.angle - part.light))
    metal = part.polish * (0.25 + 0.75 * diffuse) * (1 + 0.035 * turning + 0.10 * sheen)

    cover = draw.coverage(part.solid * pixels)
    opaque = _downsample(cover)
    offset = (round(-5 * towards[1] * part.scale), round(-5 * towards[0] * part.scale))
    shadow = np.roll(gaussian_filter(opaque, 2.5 * part.scale), offset, (0, 1))
    grain = 0.03 * draw.smooth_noise(rng, opaque.shape[0], 1.0)
    table = TABLE * ((1 - 0.35 * shadow) * (1 + grain) * (1 - opaque))[..., None]
    glint = 0.18 * _downsample(cover * highlight)
    return table + _downsample(cover * metal)[..., None] * METAL + glint[..., None]


def changed(before: Flange, after: Flange) -> Array:
    """Where the surface differs, (size, size) float32: the fraction of each pixel, 0..1."""
    pixels = SUPERSAMPLE * before.scale
    moved = np.abs(_height(after) - _height(before)) > 0.04
    moved = binary_dilation(moved) & (np.minimum(before.solid, after.solid) < 0)  # slopes spread
    material = np.abs(draw.coverage(after.solid * pixels) - draw.coverage(before.solid * pixels))
    return _downsample(np.maximum(moved.astype(np.float32), material))


def _on_face(rng: np.random.Generator, low: float, high: float) -> Array:
    """A point between two radii and clear of the bolt holes."""
    while True:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(low, high)
        point = radius * np.asarray([np.cos(angle), np.sin(angle)])
        if np.min(np.linalg.norm(_hole_centers() - point, axis=1)) > HOLE + 6:
            return point


def scratch(rng: np.random.Generator, part: Flange) -> Flange:
    """A tapering groove with fresh metal at its bottom."""
    path = draw.walk(rng, _on_face(rng, 50, 80), rng.uniform(26, 58), 5.0, 0.06)
    distance, along = draw.distance_to_polyline(part.u, part.v, path)
    width = rng.uniform(2.6, 4.2) * (1 - 0.6 * np.abs(2 * along - 1) ** 2)
    groove = np.clip(1 - distance / width, 0, 1)
    return replace(
        part,
        carving=part.carving + rng.uniform(1.0, 1.7) * groove,
        polish=part.polish * (1 + rng.uniform(-0.1, 0.25) * groove),
    )


def dent(rng: np.random.Generator, part: Flange) -> Flange:
    """A smooth pit, as left by a blow."""
    center, radius = _on_face(rng, 54, 78), rng.uniform(8, 14)
    distance = draw.distance_to_blob(rng, part.u, part.v, center, radius, 0.06) + radius
    pit = np.clip(1 - (distance / radius) ** 2, 0, None) ** 2
    return replace(part, carving=part.carving + rng.uniform(0.16, 0.3) * radius * pit)


def broken_rim(rng: np.random.Generator, part: Flange) -> Flange:
    """A piece broken off the outer edge."""
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(9, 15)
    center = (RADIUS + 1) * np.asarray([np.cos(angle), np.sin(angle)])
    bite = draw.distance_to_blob(rng, part.u, part.v, center, radius, 0.14)
    rough = draw.smooth_noise(rng, part.u.shape[0], 3.0 * part.scale)
    return replace(part, solid=np.maximum(part.solid, -(bite + 0.7 * rough)))


def misplaced_hole(rng: np.random.Generator, part: Flange) -> Flange:
    """One bolt hole drilled 15 to 24 px away from its place: seen without measuring."""
    holes = _hole_centers()
    chosen = rng.integers(HOLES)
    while True:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(15, 24)
        moved = holes[chosen] + distance * np.asarray([np.cos(angle), np.sin(angle)])
        if HUB + HOLE < np.linalg.norm(moved) < RADIUS - HOLE - CHAMFER:
            break
    holes[chosen] = moved
    return replace(part, solid=_solid(part.u, part.v, holes))


DEFECTS = {
    "broken_rim": broken_rim,
    "dent": dent,
    "misplaced_hole": misplaced_hole,
    "scratch": scratch,
}
