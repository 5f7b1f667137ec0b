"""Training samples that have a key of their own, so that a store can hold their features."""

from typing import Any

import jax
import jax.numpy as jnp

from stlm_jax.training.pseudo_anomaly import PseudoSample, pseudo_batch
from stlm_jax.training.rotation import rotate_batch


def draw_variant(key_data, place, number, image, textures, hyper) -> tuple[jax.Array, PseudoSample]:
    """A variant of one image: the image, turned as its policy says, and made anomalous.

    Args:
        key_data: uint32 data of the category's key.
        place: uint32, of the image; follows from its pixels.
        number: int32, of the variant.
        image: (H, W, 3) uint8.
        textures: (T, H, W, 3) uint8.
        hyper: as `TrainState.hyper`; its probability of a clean sample is not asked for.

    Returns:
        The clean image, uint8, and the sample.
    """
    key = jax.random.wrap_key_data(key_data)
    key = jax.random.fold_in(jax.random.fold_in(key, place), number)
    settings = {**hyper["pseudo"], "clean_probability": jnp.zeros(())}
    clean = rotate_batch(key, image[None], hyper["rotation"])
    sample = pseudo_batch(key, clean, textures, settings)
    return clean[0], jax.tree.map(lambda x: x[0], sample)


def draw_stored(batch: dict[str, Any], hyper) -> tuple[jax.Array, PseudoSample]:
    """The clean images and the samples of a batch whose features are stored.

    Its `stored` has, besides them: `key`, `place` (N,) and `number` (N,) of `draw_variant`, and
    `clean` (N,) bool, which samples are the clean image itself.
    """
    stored = batch["stored"]
    draw = jax.vmap(draw_variant, (None, 0, 0, 0, None, None))
    clean, sample = draw(
        stored["key"], stored["place"], stored["number"], batch["image"], batch["textures"], hyper
    )
    is_clean = stored["clean"][:, None, None]
    image = jnp.where(is_clean[..., None], clean.astype(jnp.float32), sample.image)
    return clean, sample._replace(image=image, mask=jnp.where(is_clean, 0.0, sample.mask))


def probe() -> jax.Array:
    """Numbers that tell whether the generator is the same, (8, 6) float32, most of them in 0..1.

    Of variants of a small image: mean and deviation of the clean image, the sample and its mask.
    """
    side = 64
    y, x, channel = jnp.meshgrid(*map(jnp.arange, (side, side, 3)), indexing="ij")
    image = ((3 * y + 2 * x + 40 * channel) % 256).astype(jnp.uint8)
    textures = jnp.stack([255 - image, image.swapaxes(0, 1)])
    hyper = {
        "rotation": {"right_angles": jnp.float32(1), "degrees": jnp.float32(5)},
        "pseudo": {
            "beta_min": jnp.float32(0),
            "beta_max": jnp.float32(0.8),
            "perlin_threshold": jnp.float32(0.5),
            "visible_difference": jnp.float32(0),
            "perlin_min_exponent": jnp.int32(0),
            "perlin_max_exponent": jnp.int32(5),
        },
    }
    key_data = jax.random.key_data(jax.random.key(0))
    draw = jax.vmap(draw_variant, (None, None, 0, None, None, None))
    clean, sample = draw(key_data, 0, jnp.arange(8), image, textures, hyper)
    seen = [x.reshape(8, -1) for x in (clean / 255.0, sample.image / 255.0, sample.mask)]
    return jnp.stack([f(x, 1) for x in seen for f in (jnp.mean, jnp.std)], 1)
