"""SAM's two-way transformer (published module: `segment_anything/modeling/transformer.py`)."""

import jax.numpy as jnp
from flax import linen as nn

from stlm_jax.models.attention import softmax_attention
from stlm_jax.models.layers import Dtype, MLPBlock
from stlm_jax.models.norms import LayerNorm


class Attention(nn.Module):
    """Multi-head attention whose inner width is the model's divided by `downsample`."""

    heads: int
    downsample: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, query, key, value):
        """(N, L_query, C), (N, L_key, C), (N, L_key, C) to (N, L_query, C)."""
        channels = query.shape[-1]
        inner = channels // self.downsample

        def heads(x, name):
            x = nn.Dense(inner, dtype=self.dtype, name=name)(x)
            x = x.reshape(*x.shape[:2], self.heads, inner // self.heads)
            return x.transpose(0, 2, 1, 3)  # (N, heads, L, D)

        projected = heads(query, "q_proj"), heads(key, "k_proj"), heads(value, "v_proj")
        y = softmax_attention(*projected, scale=(inner // self.heads) ** -0.5)
        y = y.transpose(0, 2, 1, 3).reshape(*query.shape[:2], inner)
        return nn.Dense(channels, dtype=self.dtype, name="out_proj")(y)


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens."""

    heads: int
    mlp_dim: int
    downsample: int = 2
    skip_first_layer_pe: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, queries, keys, query_pe, key_pe):
        """Tokens (N, T, C) and image (N, h*w, C), with their positions; returns both, updated."""
        cross = dict(heads=self.heads, downsample=self.downsample, dtype=self.dtype)
        self_attn = Attention(self.heads, dtype=self.dtype, name="self_attn")
        if self.skip_first_layer_pe:
            queries = self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self_attn(q, q, queries)
        queries = LayerNorm(dtype=self.dtype, name="norm1")(queries)
        queries = queries + Attention(**cross, name="cross_attn_token_to_image")(
            queries + query_pe, keys + key_pe, keys
        )
        queries = LayerNorm(dtype=self.dtype, name="norm2")(queries)
        queries = queries + MLPBlock(self.mlp_dim, nn.relu, self.dtype, name="mlp")(queries)
        queries = LayerNorm(dtype=self.dtype, name="norm3")(queries)
        keys = keys + Attention(**cross, name="cross_attn_image_to_token")(
            keys + key_pe, queries + query_pe, queries
        )
        return queries, LayerNorm(dtype=self.dtype, name="norm4")(keys)


class TwoWayTransformer(nn.Module):
    """Exchanges information between a few tokens and the image embedding."""

    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image, image_pe, tokens):
        """Image (N, h*w, C), its positions (1, h*w, C), tokens (N, T, C); both sides, updated."""
        queries, keys = tokens, image
        for index in range(self.depth):
            queries, keys = TwoWayAttentionBlock(
                self.heads,
                self.mlp_dim,
                skip_first_layer_pe=index == 0,
                dtype=self.dtype,
                name=f"layers_{index}",
            )(queries, keys, tokens, image_pe)
        final = Attention(self.heads, 2, self.dtype, name="final_attn_token_to_image")
        queries = queries + final(queries + tokens, keys + image_pe, keys)
        return LayerNorm(dtype=self.dtype, name="norm_final_attn")(queries), keys
