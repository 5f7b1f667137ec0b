"""Perlin noise and its rotation, without a gather.

Source: published `perlin.py` (after DRAEM) and its use: noise on a lattice along the image's axes,
then rotated about the image's centre and 0 outside.
"""

import math

import jax
import jax.numpy as jnp

from stlm_jax.config.keys import MAX_PERLIN_EXPONENT
from stlm_jax.training.shifts import part, quarter_turns, shift_lines, stage

_POINTS = 2**MAX_PERLIN_EXPONENT + 1  # of the largest lattice, along an axis
_LARGEST = math.pi / 4  # what quarter turns leave of an angle


def perlin_noise(angles, cells, size: tuple[int, int], side: int):
    """Perlin noise at the pixels of an image in the middle of a square, 0 around the image.

    Args:
        angles: directions of the lattice's gradients, (G + 1, G + 1) radians.
        cells: the lattice's cells along y and x, each ≤ G; may be traced.
        size: of the image, (H, W); pixel i of an axis is at i / H of the lattice.
        side: of the square.

    Returns:
        (side, side) float32, about -1..1.
    """
    # The noise is a sum over the lattice's points of a weight along y times one along x, and
    # likewise times the distance along y or x: four small products of matrices.
    y, x = (_weights(n, count, side) for n, count in zip(size, cells, strict=True))
    exact = jax.lax.Precision.HIGHEST  # a TPU's default is bfloat16
    towards_y = jnp.matmul(jnp.cos(angles), x[0].T, precision=exact)
    towards_x = jnp.matmul(jnp.sin(angles), x[1].T, precision=exact)
    left, right = jnp.concatenate([y[1], y[0]], -1), jnp.concatenate([towards_y, towards_x])
    return jnp.sqrt(2.0) * jnp.matmul(left, right, precision=exact)


def _weights(length: int, cells, side: int):
    """Weights of the lattice's points at pixels, (side, G + 1), and the same times the distance."""
    pixel = jnp.arange(side) - (side - length) / 2
    distance = (pixel * (cells / length))[:, None] - jnp.arange(_POINTS)
    t = jnp.maximum(1.0 - jnp.abs(distance), 0.0)
    fade = t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
    inside = (pixel >= 0) & (pixel < length)
    fade = jnp.where(inside[:, None], fade, 0.0)
    return fade, fade * distance


def rotate_noise(noise, size: tuple[int, int], rotation, wanted=True):
    """Turns noise counterclockwise about its centre.

    Args:
        noise: (side, side) float32, side at least H and W.
        size: (H, W) of the result.
        rotation: radians in ±π/2.
        wanted: a scalar, false where nobody uses the result.

    Returns:
        (H, W) float32, 0 outside.
    """
    turns = jnp.round(rotation / (math.pi / 2)).astype(jnp.int32)
    rotation = rotation - turns * (math.pi / 2)
    height, width = size
    tan, sin = math.tan(_LARGEST / 2), math.sin(_LARGEST)
    wide = width + 2 * math.ceil(tan * height / 2)

    # A rotation is three shears (Paeth 1986): along x, along y, along x.
    def first(noise, turns, angle):
        return shear(quarter_turns(noise, turns % 4), -jnp.tan(angle / 2), -1, wide, tan)

    def second(noise, _, angle):
        return shear(noise, jnp.sin(angle), -2, height, sin)

    def third(noise, _, angle):
        return shear(noise, -jnp.tan(angle / 2), -1, width, tan)

    for function in (first, second, third):
        noise = stage(wanted, function, noise, turns, rotation)
    return noise


def shear(image, slope, axis: int, length: int, largest: float):
    """Moves every line along `axis` by `slope` times its place, counted from the centre.

    Args:
        image: (H, W) float32, 0 around.
        slope: float32, in ±largest.
        axis: -2 moves columns, -1 rows.
        length: of the result along `axis`; its centre is the image's.
        largest: static; what it costs grows with its logarithm.

    Returns:
        The image whose pixel i of a line is at i + slope · place in `image`, in between by
        Catmull and Rom's cubic.
    """
    lines, before = image.shape[-3 - axis], image.shape[axis]
    place = jnp.arange(lines, dtype=jnp.float32) - (lines - 1) / 2
    amount = slope * place + (before - length) / 2
    whole = jnp.floor(amount)
    t = jnp.expand_dims(amount - whole, axis)
    reach = math.ceil(largest * (lines - 1) / 2) + 1
    start = (before - length) // 2 - reach  # of what the first pixel may need, less the first tap
    most = 2 * reach + 1
    last = start + most + length + 1
    pad = [(0, 0), (0, 0)]
    pad[axis] = (max(1 - start, 0), max(last + 1 - before, 0))
    image = jnp.pad(image, pad)
    image = part(image, axis, start - 1 + pad[axis][0], length + 3 + most)
    image = shift_lines(image, whole.astype(jnp.int32) - start, axis, most)
    a, b, c, d = (part(image, axis, k, length) for k in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
