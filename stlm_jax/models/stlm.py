"""The two-stream model: two encoders, one shared decoder, feature aggregation."""

import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from stlm_jax.models.mask_decoder import MaskDecoder
from stlm_jax.models.norms import in_shares
from stlm_jax.models.prompt_encoder import PromptEncoder
from stlm_jax.models.sam import features, normalise_pixels
from stlm_jax.models.segmentation import Segmentation, aggregate


@struct.dataclass
class Prediction:
    """What the model says of a batch.

    Attributes:
        plain: the plain stream's features 1 and 2, each (N, H/16, W/16, C) float32.
        denoising: the denoising stream's.
        map: the anomaly map at feature scale, (N, H/16, W/16) float32 in 0..1.
    """

    plain: tuple
    denoising: tuple
    map: jnp.ndarray


class SharedDecoder(nn.Module):
    """The prompt constants and the mask decoder that both streams use."""

    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder

    def __call__(self, embedding):
        """Embedding (N, h, w, C) to features 1 and 2, float32."""
        return features(embedding, self.prompt_encoder, self.mask_decoder)


class Stlm(nn.Module):
    """STLM, named as in the published checkpoints.

    `encoderT` is the plain stream, `encoderS` the denoising stream, `model` the shared decoder.
    `shares` are those of a batch that batch normalisation sees apart, see `norms.in_shares`.
    """

    encoderT: nn.Module  # noqa: N815
    encoderS: nn.Module  # noqa: N815
    model: SharedDecoder
    segmentation: Segmentation
    shares: int = 1

    def __call__(self, image, train: bool = False) -> Prediction:
        """Both streams and the map of an image.

        Args:
            image: (N, H, W, 3), uint8 or float in 0..255; H and W multiples of 16.
            train: whether batch normalisation uses the batch.
        """
        pixels = normalise_pixels(image, self.encoderT.dtype)
        with in_shares(self.shares):
            streams = [self.encoderT(pixels, train), self.encoderS(pixels, train)]
        embeddings = jnp.stack(streams, 1)
        # An image's two maps lie side by side: they stay on one device, and an export whose N is
        # a symbol can take them apart again.
        pairs = embeddings.shape  # (N, 2, h, w, C)
        feature1, feature2 = self.model(embeddings.reshape(-1, *pairs[2:]))
        feature1, feature2 = feature1.reshape(pairs), feature2.reshape(pairs)
        plain = (feature1[:, 0], feature2[:, 0])
        denoising = (feature1[:, 1], feature2[:, 1])
        with in_shares(self.shares):
            anomaly_map = self.segmentation(aggregate(plain, denoising), train)
        return Prediction(plain, denoising, anomaly_map)
