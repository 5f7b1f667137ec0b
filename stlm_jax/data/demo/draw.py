"""Drawing primitives of the demo set: distance fields, smooth noise, and a camera.

Images are float32, 0..1; lengths and coordinates are pixels, (x, y), origin at the centre of the
top left pixel. A signed distance is negative inside.
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter

Array = np.ndarray


def coverage(distance: Array, softness: float = 1.0) -> Array:
    """Antialiased coverage 0..1 of a shape from its signed distance, over `softness` pixels."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Array:
    """Band-limited Gaussian noise (size, size) float32 of unit standard deviation."""
    noise = gaussian_filter(
        rng.standard_normal((size, size), dtype=np.float32), sigma, mode="wrap", truncate=3.0
    )
    return noise / noise.std()


def grid(size: int) -> tuple[Array, Array]:
    """Pixel centres: x (1, size) and y (size, 1), float32."""
    axis = np.arange(size, dtype=np.float32)
    return axis[None, :], axis[:, None]


def distance_to_polyline(x: Array, y: Array, points: Array) -> tuple[Array, Array]:
    """Distance of each pixel to the polyline of `points`, (K, 2) with K >= 2.

    And where along it (0..1) the nearest point lies; `x` and `y` are as of `grid`.
    """
    shape = np.broadcast_shapes(x.shape, y.shape)
    best = np.full(shape, np.inf, np.float32)
    along = np.zeros(shape, np.float32)
    count = len(points) - 1
    corners = points.tolist()
    for index, ((x0, y0), (x1, y1)) in enumerate(zip(corners[:-1], corners[1:], strict=True)):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
        distance = (x - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2
        nearer = distance < best
        best = np.where(nearer, distance, best)
        along = np.where(nearer, (index + t) / count, along)
    return np.sqrt(best), along


def distance_to_blob(
    rng: np.random.Generator, x: Array, y: Array, center: Array, radius: float, roughness: float
) -> Array:
    """Signed distance (to first order) to an irregular closed outline of mean radius `radius`.

    `roughness` is the relative amplitude of the outline's harmonics; 0 is a circle.
    """
    dx, dy = x - float(center[0]), y - float(center[1])
    turn = np.linspace(-np.pi, np.pi, 721)
    outline = np.ones_like(turn)
    for harmonic in range(2, 10):
        amplitude = roughness * rng.normal() / harmonic
        outline += amplitude * np.cos(harmonic * turn + rng.uniform(0, 2 * np.pi))
    reach = (radius * np.clip(outline, 0.45, 1.7)).astype(np.float32)
    nearest = np.rint((np.arctan2(dy, dx) + np.pi) * (720 / (2 * np.pi))).astype(np.int32)
    stretch, tilt = float(rng.uniform(1.0, 1.4)), float(rng.uniform(0, np.pi))
    along = dx * math.cos(tilt) + dy * math.sin(tilt)
    across = dy * math.cos(tilt) - dx * math.sin(tilt)
    return np.hypot(along / stretch, across * stretch) - reach[nearest]


def walk(rng: np.random.Generator, center: Array, length: float, step: float, turn: float) -> Array:
    """A random walk of about `length` pixels in segments of `step`, `center` its middle: (K, 2).

    `turn` is the standard deviation of the heading's change at each step, radians.
    """
    count = max(2, round(length / step))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, turn, count))
    steps = step * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return points - points.mean(axis=0) + center


def relief(height: Array, azimuth: float) -> Array:
    """Slope of a height field towards the light: positive where it faces `azimuth` (radians)."""
    dy, dx = np.gradient(height)
    return -(dx * math.cos(azimuth) + dy * math.sin(azimuth))


def photograph(scene: Array, rng: np.random.Generator) -> Array:
    """What a camera makes of a scene (H, W, 3), 0..1: (H, W, 3) uint8.

    Exposure, uneven light, white balance and sensor noise are drawn from `rng` alone, so two scenes
    that differ in some pixels give photographs that differ in no other pixel.
    """
    size = scene.shape[0]
    x, y = grid(size)
    direction = rng.uniform(0, 2 * np.pi)
    ramp = ((x - size / 2) * np.cos(direction) + (y - size / 2) * np.sin(direction)) / size
    light = rng.uniform(0.92, 1.08) * (1 + rng.uniform(0, 0.14) * ramp)
    balance = 1 + rng.normal(0, 0.006, 3)
    image = scene * light[..., None] * balance
    noise = rng.standard_normal(scene.shape, dtype=np.float32)
    image = image + noise * np.sqrt(6e-5 + 2e-4 * np.clip(image, 0, 1))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
