"""SAM as STLM's frozen teacher: an image in, two feature levels out."""

import jax.numpy as jnp
from flax import linen as nn

from stlm_jax.models.mask_decoder import MaskDecoder
from stlm_jax.models.prompt_encoder import PromptEncoder

PIXEL_MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in 0..255 units, as SAM uses
PIXEL_STD = (58.395, 57.12, 57.375)


def normalise_pixels(image, dtype=jnp.float32):
    """RGB (N, H, W, 3), uint8 or float in 0..255, to zero mean and unit variance."""
    mean, std = jnp.asarray(PIXEL_MEAN), jnp.asarray(PIXEL_STD)
    return ((image.astype(jnp.float32) - mean) / std).astype(dtype)


class Sam(nn.Module):
    """Image encoder, prompt constants and mask decoder, named as in SAM's checkpoints."""

    image_encoder: nn.Module
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder

    def __call__(self, image, train: bool = False):
        """Features 1 and 2 of an image, as `features` gives them.

        Args:
            image: (N, H, W, 3), uint8 or float in 0..255; H and W multiples of 16.
            train: whether batch normalisation uses the batch.
        """
        embedding = self.image_encoder(normalise_pixels(image, self.image_encoder.dtype), train)
        return features(embedding, self.prompt_encoder, self.mask_decoder)


def features(embedding, prompt_encoder, mask_decoder):
    """Both feature levels of an encoder's embedding (N, h, w, C), each of its shape, float32.

    Feature 1 is the embedding itself, feature 2 the image side of the decoder's transformer.
    """
    dense_prompt, positions = prompt_encoder(embedding.shape[1:3])
    decoded = mask_decoder(embedding, dense_prompt, positions)
    return embedding.astype(jnp.float32), decoded.astype(jnp.float32)
