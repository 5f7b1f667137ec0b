"""Procedural textures and rendered shapes. All are (size, size, 3) float32 in 0..255."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Generator = np.random.Generator
Renderer = Callable[[Generator, int], np.ndarray]


def resize_field(field: np.ndarray, size: int) -> np.ndarray:
    """Bicubic enlargement of a 2-D float field to (size, size) float32."""
    image = Image.fromarray(field.astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def noise_field(rng: Generator, size: int) -> np.ndarray:
    """Noise of several octaves, possibly stretched along one axis; (size, size) in 0..1."""
    total = np.zeros((size, size), np.float32)
    low = rng.integers(1, 5)
    stretch = 2 ** rng.integers(0, 4) if rng.random() < 0.4 else 1
    for octave in range(low, rng.integers(low + 1, 9)):
        cells = 2**octave
        shape = (max(cells // stretch, 2), cells)
        grid = rng.standard_normal(shape if rng.random() < 0.5 else shape[::-1])
        total += resize_field(grid, size) * rng.uniform(0.4, 0.9) ** (octave - low)
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def coordinates(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotated, slightly warped pixel coordinates (u, v), each (size, size) float32."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.6 else 0.0
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    if rng.random() < 0.4:
        strength = rng.uniform(2, size / 12)
        u = u + strength * noise_field(rng, size)
        v = v + strength * noise_field(rng, size)
    return u, v


def _colour(rng: Generator) -> np.ndarray:
    """A colour; half of them nearly grey."""
    colour = rng.uniform(0, 255, 3)
    if rng.random() < 0.5:
        colour = colour.mean() + rng.normal(0, 12, 3)
    return np.clip(colour, 0, 255).astype(np.float32)


def colourise(rng: Generator, field: np.ndarray) -> np.ndarray:
    """Maps a field in 0..1 onto a line between two or three random colours."""
    first, second = _colour(rng), _colour(rng)
    image = first + field[..., None] * (second - first)
    if rng.random() < 0.3:
        bump = 4 * field * (1 - field)
        image = image + bump[..., None] * (_colour(rng) - first) * 0.7
    return image


def clouds(rng: Generator, size: int) -> np.ndarray:
    """Plain noise, sometimes cut into spots or veins."""
    field = noise_field(rng, size)
    kind = rng.integers(3)
    if kind == 1:
        field = 1 / (1 + np.exp(-rng.uniform(8, 60) * (field - rng.uniform(0.3, 0.7))))
    elif kind == 2:
        field = np.abs(2 * field - 1) ** rng.uniform(0.3, 1)
    return colourise(rng, field)


def waves(rng: Generator, size: int) -> np.ndarray:
    """Stripes, checks or a weave of two directions."""
    u, v = coordinates(rng, size)
    period = np.exp(rng.uniform(np.log(4), np.log(size / 3)))
    first = np.sin(2 * np.pi * u / period)
    second = np.sin(2 * np.pi * v / (period * rng.uniform(0.5, 2)))
    field = (first, first * second, np.maximum(first, second))[rng.integers(3)]
    sharpness = rng.uniform(0.5, 8)
    field = 1 / (1 + np.exp(-sharpness * field))
    return colourise(rng, field) + rng.uniform(0, 40) * (noise_field(rng, size)[..., None] - 0.5)


def tiles(rng: Generator, size: int) -> np.ndarray:
    """A wall of rectangles with joints, each of its own shade."""
    u, v = coordinates(rng, size)
    height = np.exp(rng.uniform(np.log(10), np.log(size / 2.5)))
    width = height * rng.uniform(0.8, 3)
    row = np.floor(v / height)
    shifted = u / width + (row % 2) * rng.choice([0.0, 0.5])
    column = np.floor(shifted)
    edge = np.minimum(
        np.minimum(v / height - row, 1 - (v / height - row)) * height,
        np.minimum(shifted - column, 1 - (shifted - column)) * width,
    )
    joint = np.clip(edge / rng.uniform(0.5, 3) - rng.uniform(0, 1.5), 0, 1)[..., None]
    shade = (np.sin(row * 12.9898 + column * 78.233) * 43758.5453) % 1
    stone = colourise(rng, shade * rng.uniform(0, 0.5) + 0.5 * noise_field(rng, size))
    return stone * joint + _colour(rng) * (1 - joint)


def cells(rng: Generator, size: int) -> np.ndarray:
    """Voronoi cells: pebbles, cobbles, cracks."""
    count = int(np.exp(rng.uniform(np.log(8), np.log(120))))
    half = size // 2
    points = rng.uniform(0, half, (count, 2)).astype(np.float32)
    y, x = np.mgrid[:half, :half].astype(np.float32)
    distance = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    nearest = distance.argmin(-1)
    closest, next_closest = np.moveaxis(np.sqrt(np.partition(distance, 1, -1)[..., :2]), -1, 0)
    edge = (next_closest - closest) / (next_closest.mean() + 1e-6)
    shade = rng.random(count)[nearest]
    relief = resize_field(np.clip(edge * rng.uniform(1, 6), 0, 1), size)
    stone = colourise(rng, np.clip(resize_field(shade, size), 0, 1))
    stone = stone + rng.uniform(0, 60) * (noise_field(rng, size)[..., None] - 0.5)
    return stone * (rng.uniform(0, 0.7) + relief[..., None] * 0.6)


def polygon_points(rng: Generator, size: int, centre, radius: float) -> list[tuple[float, float]]:
    """A closed outline around `centre`: a regular polygon, a gear, or an irregular blob."""
    count = int(rng.integers(3, 14))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 2 * np.pi)
    reach = np.full(count, radius)
    kind = rng.integers(3)
    if kind == 1:
        reach[::2] *= rng.uniform(0.5, 0.95)
    elif kind == 2:
        reach = reach * rng.uniform(0.5, 1.2, count)
    xs, ys = centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def shape_mask(rng: Generator, size: int, radius: float) -> np.ndarray:
    """One ellipse, polygon, ring or bar, antialiased; (size, size) in 0..1."""
    scale = 2
    image = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(image)
    cx, cy = rng.uniform(0.1, 0.9, 2) * size * scale
    r = radius * scale
    kind = rng.integers(4)
    if kind == 0:
        ry = r * rng.uniform(0.4, 1)
        draw.ellipse((cx - r, cy - ry, cx + r, cy + ry), fill=255)
    elif kind == 1:
        draw.polygon(polygon_points(rng, size, (cx, cy), r), fill=255)
    elif kind == 2:
        width = max(1, int(r * rng.uniform(0.1, 0.6)))
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), outline=255, width=width)
    else:
        angle = rng.uniform(0, np.pi)
        dx, dy = r * np.cos(angle), r * np.sin(angle)
        width = max(1, int(r * rng.uniform(0.03, 0.5)))
        draw.line((cx - dx, cy - dy, cx + dx, cy + dy), fill=255, width=width)
    small = image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def gradient(rng: Generator, size: int) -> np.ndarray:
    """A smooth background between two colours."""
    u, _ = coordinates(rng, size)
    return colourise(rng, (u - u.min()) / max(float(np.ptp(u)), 1e-6))


def shapes(rng: Generator, size: int) -> np.ndarray:
    """Shapes laid over each other, with bevels lit from one side and cast shadows."""
    image = gradient(rng, size) if rng.random() < 0.6 else clouds(rng, size)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 12)):
        radius = np.exp(rng.uniform(np.log(4), np.log(size * 0.45)))
        mask = shape_mask(rng, size, radius)
        if rng.random() < 0.5:
            shift = int(rng.integers(2, 8))
            shadow = np.roll(mask, (shift, shift), (0, 1))[..., None]
            image = image * (1 - 0.5 * shadow)
        surface = _colour(rng) if rng.random() < 0.5 else clouds(rng, size)
        image = image * (1 - mask[..., None]) + surface * mask[..., None]
        slope_y, slope_x = np.gradient(mask)
        relief = np.cos(light) * slope_x + np.sin(light) * slope_y
        image = image + rng.uniform(0, 150) * relief[..., None]
    return image


# Shapes come twice as often as each of the others.
RENDERERS: tuple[Renderer, ...] = (clouds, waves, tiles, cells, shapes, shapes)


def render(rng: Generator, size: int) -> np.ndarray:
    """One image by a renderer drawn at random."""
    return RENDERERS[rng.integers(len(RENDERERS))](rng, size)
