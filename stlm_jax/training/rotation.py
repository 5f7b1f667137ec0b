"""Rotation of training images on the device, by a policy for each category.

As published: by a random multiple of 90° (the category permitting), which moves pixels and changes
none, then by a random angle in ±5° as PIL's bilinear `Image.rotate` does it, corners filled with
114.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from stlm_jax.data.geometry import FILL

SMALL = 5.0  # published, degrees

# By name: whether by random multiples of 90°, and the largest further angle in degrees.
POLICIES = {"none": (0.0, 0.0), "small": (0.0, SMALL), "right_angles": (1.0, SMALL)}
DEFAULT = "default"  # the key of the policy of categories that have none of their own

_STREAM = zlib.crc32(b"rotation")  # far from 0..N-1, where fold_in gives the keys of split


def policy_numbers(policies: Mapping[str, str], category: str = "") -> dict[str, jax.Array]:
    """The numbers of a category's policy for `rotate_batch`, float32 scalars.

    Args:
        policies: `config.data.rotation`.
        category: one of its keys; any other stands for `default`.
    """
    right_angles, degrees = POLICIES[policies.get(category, policies[DEFAULT])]
    return {
        "right_angles": jnp.float32(right_angles),
        "degrees": jnp.float32(degrees),
    }


def rotate(image, quarter_turns, degrees):
    """Turns an image counterclockwise about its centre.

    Exactly what PIL's `rotate(90 * quarter_turns)` followed by
    `rotate(degrees, BILINEAR, fillcolor=114)` gives of a square image, but for rounding errors of
    float32; by 0° the image itself.

    Args:
        image: (H, W, C) uint8; quarter turns of an oblong one are about its centre, too.
        quarter_turns: int32, 0..3.
        degrees: float32, any.

    Returns:
        (H, W, C) uint8.
    """
    height, width = image.shape[:2]
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Pixel centres relative to the image's centre, which makes all of them exact in float32.
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    source_x, source_y = cos * x - sin * y, sin * x + cos * y  # (H, W)
    turn_cos = jnp.array([1.0, 0.0, -1.0, 0.0])[quarter_turns]
    turn_sin = jnp.array([0.0, 1.0, 0.0, -1.0])[quarter_turns]
    source_x, source_y = (
        turn_cos * source_x - turn_sin * source_y + (width - 1) / 2,
        turn_sin * source_x + turn_cos * source_y + (height - 1) / 2,
    )
    inside = _inside(source_x, width) & _inside(source_y, height)
    return jnp.where(inside[..., None], _sample(image, source_y, source_x), jnp.uint8(FILL))


def _inside(position, length):
    return (position >= -0.5) & (position < length - 0.5)


def _sample(image, y, x):
    """Bilinear values at fractional pixel indices, clamped at the border, truncated to uint8."""
    height, width, channels = image.shape
    top, left = jnp.floor(y), jnp.floor(x)
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    rows = [jnp.clip(top + i, 0, height - 1).astype(jnp.int32) for i in (0, 1)]
    columns = [jnp.clip(left + j, 0, width - 1).astype(jnp.int32) for j in (0, 1)]
    pixels = image.reshape(-1, channels)  # (H*W, C)

    def corner(i, j):
        return pixels[rows[i] * width + columns[j]].astype(jnp.float32)

    upper = corner(0, 0) + dx * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + dx * (corner(1, 1) - corner(1, 0))
    return (upper + dy * (lower - upper)).astype(jnp.uint8)


def rotate_batch(key, images, settings):
    """Turns every image of a batch by a random angle of its own.

    Args:
        key: of the training step, whose other draws are independent of this one's.
        images: (N, H, W, C) uint8.
        settings: arrays `right_angles`, 0 or 1, and `degrees`; where both are 0,
            the images are returned as they are.

    Returns:
        (N, H, W, C) uint8.
    """

    def turned(images):
        turns_key, angle_key = jax.random.split(jax.random.fold_in(key, _STREAM))
        count = images.shape[0]
        turns = jax.random.randint(turns_key, (count,), 0, 4)
        turns = jnp.where(settings["right_angles"] > 0, turns, 0)
        angles = jax.random.uniform(angle_key, (count,), minval=-1.0, maxval=1.0)
        return jax.vmap(rotate)(images, turns, angles * settings["degrees"])

    any_rotation = (settings["right_angles"] > 0) | (settings["degrees"] > 0)
    return jax.lax.cond(any_rotation, turned, lambda images: images, images)
