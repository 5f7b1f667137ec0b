"""Pseudo-anomalies made on the device: Perlin masks and blended textures.

Source: published `perlin.py` and data set code (after DRAEM). Everything is a pure function of
a key; every number may be a traced array.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from stlm_jax.config.keys import MAX_PERLIN_EXPONENT
from stlm_jax.training.perlin import perlin_noise, rotate_noise

VISIBLE_RADIUS = 4  # pixels, a quarter of a feature cell: within so much of a visible change


class PseudoSample(NamedTuple):
    """One image, made anomalous or left clean.

    Attributes:
        image: (H, W, 3) float32 in 0..255.
        mask: (H, W) float32, 1 where the image was changed, as far as that is to be seen.
        beta: the opacity of the original under the mask.
    """

    image: jax.Array
    mask: jax.Array
    beta: jax.Array


def perlin_mask(
    key, size: tuple[int, int], min_exponent=0, max_exponent=5, threshold=0.5, wanted=True
):
    """A random blob mask; the defaults are the published distribution.

    The lattice has 2^k cells an axis, k uniform in min..max for each axis; the noise is rotated
    about the image's centre by a uniform angle in ±90°, is 0 outside, and is cut at > threshold.
    Where the scalar `wanted` is false nobody uses it, and it is not computed.

    Returns:
        (H, W) float32, 0 or 1.
    """
    lattice_key, angle_key, rotation_key = jax.random.split(key, 3)
    exponents = jax.random.randint(lattice_key, (2,), min_exponent, max_exponent + 1)
    cells = jnp.exp2(exponents.astype(jnp.float32))
    table = (2**MAX_PERLIN_EXPONENT + 1,) * 2
    angles = jax.random.uniform(angle_key, table, maxval=2 * jnp.pi)
    rotation = jax.random.uniform(rotation_key, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    noise = rotate_noise(perlin_noise(angles, cells, size, max(size)), size, rotation, wanted)
    return (noise > threshold).astype(jnp.float32)


def blend(image, texture, mask, beta):
    """image·(1 − m) + (1 − β)·texture·m + β·image·m.

    Args:
        image: (H, W, 3) in 0..255.
        texture: likewise.
        mask: (H, W), 0 or 1.
        beta: opacity of the original.

    Returns:
        (H, W, 3) float32.
    """
    image, texture, mask = image.astype(jnp.float32), texture.astype(jnp.float32), mask[..., None]
    return image * (1.0 - mask) + ((1.0 - beta) * texture + beta * image) * mask


def visible(before, after, difference):
    """Where a person could see a change: near a pixel with a channel that changed by much.

    Args:
        before: (H, W, 3) in 0..255.
        after: likewise.
        difference: by more than which a channel must change.

    Returns:
        (H, W) bool, true within VISIBLE_RADIUS pixels along each axis.
    """
    change = jnp.abs(after - before.astype(jnp.float32)).max(-1)
    seen = (change > difference).astype(jnp.float32)
    width = 2 * VISIBLE_RADIUS + 1
    for window in ((width, 1), (1, width)):
        seen = jax.lax.reduce_window(seen, 0.0, jax.lax.max, window, (1, 1), "SAME")
    return seen > 0


def pseudo_anomaly(key, image, textures, settings) -> PseudoSample:
    """Makes one training sample.

    Args:
        key: of `jax.random`.
        image: a good image, (H, W, 3) uint8.
        textures: the bank to draw from, (T, H, W, 3) uint8.
        settings: arrays `clean_probability`, `beta_min`, `beta_max`, `perlin_threshold`,
            `visible_difference`, 0 for the whole mask, and, int32, `perlin_min_exponent` and
            `perlin_max_exponent`.
    """
    return _changed(key, image, _texture(key, textures), settings)


def _texture(key, textures):
    texture_key = jax.random.split(key, 4)[2]
    index = jax.random.randint(texture_key, (), 0, textures.shape[0])
    return jax.lax.dynamic_index_in_dim(textures, index, keepdims=False)


def _changed(key, image, texture, settings) -> PseudoSample:
    mask_key, clean_key, _, beta_key = jax.random.split(key, 4)
    mask = perlin_mask(
        mask_key,
        image.shape[:2],
        settings["perlin_min_exponent"],
        settings["perlin_max_exponent"],
        settings["perlin_threshold"],
        jnp.asarray(settings["clean_probability"]) < 1.0,
    )
    clean = jax.random.uniform(clean_key) < settings["clean_probability"]
    mask = jnp.where(clean, 0.0, mask)
    beta_min, beta_max = settings["beta_min"], settings["beta_max"]
    beta = beta_min + (beta_max - beta_min) * jax.random.uniform(beta_key)
    blended = blend(image, texture, mask, beta)
    difference = settings["visible_difference"]
    seen = (difference <= 0) | visible(image, blended, difference)
    return PseudoSample(blended, jnp.where(seen, mask, 0.0), beta)


def pseudo_batch(key, images, textures, settings, lanes: int = 1) -> PseudoSample:
    """`pseudo_anomaly` of every image of a batch (N, H, W, 3), each with a key of its own.

    Where the batch lies on several devices `lanes` is their number: each takes the textures of its
    own samples.
    """
    keys = jax.random.split(key, images.shape[0])

    def choose(keys):
        # Apart, since an index that is vmapped becomes a gather from the whole bank.
        return jnp.stack([_texture(each, textures) for each in keys])

    if lanes == 1:
        chosen = choose(keys)
    else:
        chosen = jax.vmap(choose)(keys.reshape(lanes, -1)).reshape(images.shape)
    return jax.vmap(_changed, in_axes=(0, 0, 0, None))(keys, images, chosen, settings)
