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
from stlm_jax.training.bilinear import rotate_bilinear

SMALL = 5.0  # published, degrees

# By name: whether by random multiples of 90°, and the largest further angle in degrees.
POLICIES = {"none": (0.0, 0.0), "small": (0.0, SMALL), "right_angles": (1.0, SMALL)}
DEFAULT = "default"  # the key of the policy of categories that have none of their own

_STREAM = zlib.crc32(b"rotation")  # far from 0..N-1, where fold_in gives the keys of split


def policy_of(policies: Mapping[str, str], category: str = "") -> str:
    """By which of `POLICIES` the images of a category are turned; see `policy_numbers`."""
    return policies.get(category, policies[DEFAULT])


def policy_numbers(policies: Mapping[str, str], category: str = "") -> dict[str, jax.Array]:
    """The numbers of a category's policy for `rotate_batch`, float32 scalars.

    Args:
        policies: `config.data.rotation`.
        category: one of its keys; any other stands for `default`.
    """
    right_angles, degrees = POLICIES[policy_of(policies, category)]
    return {
        "right_angles": jnp.float32(right_angles),
        "degrees": jnp.float32(degrees),
    }


def rotate(image, quarter_turns, degrees, wanted=True):
    """Turns an image counterclockwise about its centre.

    Exactly what PIL's `rotate(90 * quarter_turns)` followed by
    `rotate(degrees, BILINEAR, fillcolor=114)` gives of a square image, but for rounding errors of
    float32; by 0° the image itself.

    Args:
        image: (H, W, C) uint8; quarter turns of an oblong one are about its centre, too.
        quarter_turns: int32, 0..3.
        degrees: float32, in ±`SMALL`.
        wanted: a scalar, false where nobody uses the result.

    Returns:
        (H, W, C) uint8.
    """
    return rotate_bilinear(image, quarter_turns, degrees, SMALL, FILL, wanted)


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
    any_rotation = (settings["right_angles"] > 0) | (settings["degrees"] > 0)

    def turned(images):
        turns_key, angle_key = jax.random.split(jax.random.fold_in(key, _STREAM))
        count = images.shape[0]
        turns = jax.random.randint(turns_key, (count,), 0, 4)
        turns = jnp.where(settings["right_angles"] > 0, turns, 0)
        angles = jax.random.uniform(angle_key, (count,), minval=-1.0, maxval=1.0)
        angles = angles * settings["degrees"]
        each = jax.vmap(rotate, in_axes=(0, 0, 0, None))
        return each(images, turns, angles, any_rotation)

    return jax.lax.cond(any_rotation, turned, lambda images: images, images)
