"""The two-stream model: two encoders, one shared decoder, feature aggregation."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from stlm_jax.models.components import PUBLISHED, Components, chosen
from stlm_jax.models.mask_decoder import MaskDecoder
from stlm_jax.models.norms import in_shares
from stlm_jax.models.prompt_encoder import PromptEncoder
from stlm_jax.models.sam import features, normalise_pixels
from stlm_jax.models.segmentation import Segmentation, aggregate, cosine_distance_map


@struct.dataclass
class Prediction:
    """What the model says of a batch.

    Attributes:
        plain: the plain stream's features 1 and 2, each (N, H/16, W/16, C) float32.
        denoising: the denoising stream's.
        map: the anomaly map at feature scale, (N, H/16, W/16) float32 in 0..1; of FA, or, where
            that does not take part, of the cosine distances.
    """

    plain: tuple
    denoising: tuple
    map: jnp.ndarray


class SharedDecoder(nn.Module):
    """The prompt constants and the mask decoder, as published one that both streams use."""

    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder

    def __call__(self, embedding):
        """Embedding (N, h, w, C) to features 1 and 2, float32."""
        return features(embedding, self.prompt_encoder, self.mask_decoder)


class Stlm(nn.Module):
    """STLM, named as in the published checkpoints.

    `encoderT` is the plain stream, `encoderS` the denoising stream, `model` the shared decoder.
    For ablations `modelS` is a decoder of the denoising stream's own, and `components` the parts
    that take part.
    `shares` are those of a batch that batch normalisation sees apart, see `norms.in_shares`.
    """

    encoderT: nn.Module  # noqa: N815
    encoderS: nn.Module  # noqa: N815
    model: SharedDecoder
    segmentation: Segmentation
    shares: int = 1
    modelS: SharedDecoder | None = None  # noqa: N815
    components: Components = PUBLISHED

    def __call__(
        self, image: Any, train: bool = False, components: Components | None = None
    ) -> Prediction:
        """Both streams and the map of an image.

        Args:
            image: (N, H, W, 3), uint8 or float in 0..255; H and W multiples of 16.
            train: whether batch normalisation uses the batch.
            components: arrays, in place of the module's.
        """
        parts = self.components if components is None else components
        pixels = normalise_pixels(image, self.encoderT.dtype)
        with in_shares(self.shares):
            streams = [self.encoderT(pixels, train), self.encoderS(pixels, train)]
        plain, denoising = self._decoded(*streams)
        with in_shares(self.shares):
            anomaly_map = self.segmentation(aggregate(plain, denoising, parts), train)
        if parts.fa is not True:
            distances = cosine_distance_map(plain, denoising, parts.levels)
            most = 2.0 ** sum(jnp.float32(level) for level in parts.levels)
            anomaly_map = chosen(parts.fa, anomaly_map, distances / most)
        return Prediction(plain, denoising, anomaly_map)

    def _decoded(self, plain, denoising) -> tuple[tuple, tuple]:
        """Features 1 and 2 of each stream's embedding (N, h, w, C)."""
        parts = self.components
        if self.modelS is not None or parts.plain is False or parts.denoising is False:
            # Apart, so that compilers leave out a stream that nobody looks at.
            return self.model(plain), (self.modelS or self.model)(denoising)
        embeddings = jnp.stack([plain, denoising], 1)
        # An image's two maps lie side by side: they stay on one device, and an export whose N is
        # a symbol can take them apart again.
        pairs = embeddings.shape  # (N, 2, h, w, C)
        feature1, feature2 = self.model(embeddings.reshape(-1, *pairs[2:]))
        feature1, feature2 = feature1.reshape(pairs), feature2.reshape(pairs)
        return (feature1[:, 0], feature2[:, 0]), (feature1[:, 1], feature2[:, 1])
