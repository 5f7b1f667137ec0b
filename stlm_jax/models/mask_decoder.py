"""The part of SAM's mask decoder that gives STLM's second feature level."""

import jax.numpy as jnp
from flax import linen as nn

from stlm_jax.models.layers import Dtype
from stlm_jax.models.transformer import TwoWayTransformer

MASK_TOKENS = 4  # three masks and one for ambiguous prompts


class MaskDecoder(nn.Module):
    """Tokens and two-way transformer of SAM's `MaskDecoder`.

    STLM takes the image side of the transformer's output (paper, section 3.2); upscaling,
    hypernetworks and the IoU head are not built.
    """

    channels: int = 256
    mlp_dim: int = 2048
    dtype: Dtype = jnp.float32

    def setup(self):
        """Names as published."""
        self.iou_token = nn.Embed(1, self.channels)
        self.mask_tokens = nn.Embed(MASK_TOKENS, self.channels)
        self.transformer = TwoWayTransformer(mlp_dim=self.mlp_dim, dtype=self.dtype)

    def __call__(self, embedding, dense_prompt, positions):
        """Embedding (N, h, w, C), prompt (C,), positions (h, w, C) to feature 2, (N, h, w, C)."""
        count, height, width, channels = embedding.shape
        tokens = jnp.concatenate([self.iou_token.embedding, self.mask_tokens.embedding])
        tokens = jnp.broadcast_to(tokens, (count, *tokens.shape)).astype(self.dtype)
        image = (embedding + dense_prompt.astype(self.dtype)).reshape(count, -1, channels)
        positions = positions.reshape(1, -1, channels).astype(self.dtype)
        _, image = self.transformer(image, positions, tokens)
        return image.reshape(count, height, width, channels)
