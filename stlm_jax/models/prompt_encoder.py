"""What SAM's prompt encoder gives when there is no prompt: two constants."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from stlm_jax.models.layers import normal


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions (published: `PositionEmbeddingRandom`).

    The matrix is a buffer in torch: it is never trained.
    """

    channels: int

    @nn.compact
    def __call__(self, size: tuple[int, int]):
        """The encoding of a map, (h, w, channels) float32."""
        shape = (2, self.channels // 2)
        matrix = self.param("positional_encoding_gaussian_matrix", normal(1.0), shape)
        height, width = size
        y = (np.arange(height, dtype=np.float32) + 0.5) / height
        x = (np.arange(width, dtype=np.float32) + 0.5) / width
        grid = np.stack(np.meshgrid(x, y), -1) * 2 - 1  # (h, w, [x, y])
        matrix = lax.stop_gradient(matrix)
        angle = 2 * np.pi * jnp.einsum("hwi,ic->hwc", grid, matrix, precision="highest")
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class PromptEncoder(nn.Module):
    """The dense prompt and the image positions of SAM's decoder, with no points, boxes or masks."""

    channels: int = 256

    def setup(self):
        """Names as published."""
        self.pe_layer = PositionEmbeddingRandom(self.channels)
        self.no_mask_embed = nn.Embed(1, self.channels)

    def __call__(self, size: tuple[int, int]):
        """Dense prompt (channels,) and positional encoding (h, w, channels), float32."""
        return self.no_mask_embed.embedding[0], self.pe_layer(size)
