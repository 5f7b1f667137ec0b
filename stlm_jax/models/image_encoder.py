"""SAM's ViT image encoder (published module: `segment_anything/modeling/image_encoder.py`)."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stlm_jax.models.attention import attend_in_parts, merge_windows, partition_windows
from stlm_jax.models.layers import Dtype, MLPBlock, Neck, normal, zeros
from stlm_jax.models.norms import LAYER_NORM_2D_EPSILON, LayerNorm
from stlm_jax.models.resize import resize_bilinear, resize_linear

PATCH = 16  # pixels


def relative_positions(table, size: int):
    """Rows of a relative-position table for every pair of positions along an axis of `size`.

    `table` (2 * trained_size - 1, D) is interpolated linearly where `size` is another; the result
    is (size, size, D): [query, key].
    """
    table = resize_linear(table, 2 * size - 1)
    index = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[index]


class Attention(nn.Module):
    """Multi-head attention over a map, with decomposed relative positions.

    `table_size` is the map size for which the checkpoint's tables were trained.
    """

    heads: int
    table_size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, h, w, C) to the same."""
        count, height, width, channels = x.shape
        depth = channels // self.heads
        table_shape = (2 * self.table_size - 1, depth)
        table_h = self.param("rel_pos_h", zeros, table_shape)
        table_w = self.param("rel_pos_w", zeros, table_shape)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(count, height * width, 3, self.heads, depth).transpose(2, 0, 3, 1, 4)
        query, key, value = qkv  # (N, heads, h*w, D)
        grid = query.reshape(count, self.heads, height, width, depth).astype(jnp.float32)
        rel_h = jnp.einsum("nayxd,ykd->nayxk", grid, relative_positions(table_h, height))
        rel_w = jnp.einsum("nayxd,xkd->nayxk", grid, relative_positions(table_w, width))
        rel_h, rel_w = rel_h.reshape(*query.shape[:3], -1), rel_w.reshape(*query.shape[:3], -1)
        y = attend_in_parts(query, key, value, depth**-0.5, rel_h, rel_w)
        y = y.transpose(0, 2, 1, 3).reshape(count, height, width, channels)
        return nn.Dense(channels, dtype=self.dtype, name="proj")(y)


class Block(nn.Module):
    """A transformer block; `window` 0 attends globally."""

    heads: int
    window: int
    table_size: int
    mlp_ratio: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, h, w, C) to the same. Windows are padded after the norm, unmasked, as published."""
        norm = dict(epsilon=LAYER_NORM_2D_EPSILON, dtype=self.dtype)
        size, channels = x.shape[1:3], x.shape[-1]
        attention = Attention(self.heads, self.table_size, self.dtype, name="attn")
        y = LayerNorm(**norm, name="norm1")(x)
        if self.window:
            windows, padded = partition_windows(y, self.window)
            y = attention(windows.reshape(-1, self.window, self.window, channels))
            y = merge_windows(y.reshape(windows.shape), self.window, padded, size)
        else:
            y = attention(y)
        x = x + y
        y = LayerNorm(**norm, name="norm2")(x)
        return x + MLPBlock(self.mlp_ratio * channels, dtype=self.dtype, name="mlp")(y)


class ImageEncoderViT(nn.Module):
    """SAM's encoder. Position tables trained for `trained_size` pixels serve any multiple of 16."""

    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    out_channels: int = 256
    trained_size: int = 1024
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Normalised image (N, H, W, 3) to the embedding (N, H/16, W/16, out_channels)."""
        del train  # there is no batch statistic and no dropout in it
        grid = self.trained_size // PATCH
        x = PatchProjection(self.embed_dim, self.dtype, name="patch_embed")(x)
        positions = self.param("pos_embed", normal(0.02), (1, grid, grid, self.embed_dim))
        x = x + resize_bilinear(positions, x.shape[1:3]).astype(self.dtype)
        for index in range(self.depth):
            is_global = index in self.global_blocks
            x = Block(
                self.heads,
                window=0 if is_global else self.window,
                table_size=grid if is_global else self.window,
                dtype=self.dtype,
                name=f"blocks_{index}",
            )(x)
        return Neck(self.out_channels, self.dtype, name="neck")(x)


class PatchProjection(nn.Module):
    """Non-overlapping patches, each projected to a vector."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, H, W, 3) to (N, H/16, W/16, features)."""
        patch = (PATCH, PATCH)
        return nn.Conv(self.features, patch, patch, "VALID", dtype=self.dtype, name="proj")(x)
