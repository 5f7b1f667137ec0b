"""Attention over maps: windows, and the softmax in pieces that memory can hold."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# Logits at a time, of all heads: what a CPU's cache likes, and what keeps an accelerator busy,
# where a part has at least so many queries that windows stay whole.
_MOST_ON_CPU, _MOST_ELSEWHERE, _QUERIES_ELSEWHERE = 2**22, 2**24, 256


def softmax_attention(query, key, value, scale, bias=None):
    """Multi-head attention over (N, heads, L, D), with the softmax in float32.

    `bias` is added to the logits: (N, heads, L_query, L_key), or without N for all.
    """
    logits = jnp.einsum("nhqd,nhkd->nhqk", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias if bias.ndim == logits.ndim else _add_to_each(logits, bias)
    weights = nn.softmax(logits.astype(jnp.float32), axis=-1).astype(value.dtype)
    return jnp.einsum("nhqk,nhkd->nhqd", weights, value)


@jax.custom_vjp
def _add_to_each(x, bias):
    """`bias` (…) added to each of `x` (N, …)."""
    return x + bias


def _sum_of_each(gradient):
    """The sum over N, on CPU by a product: XLA's reduction there takes a hundred times longer."""
    ones = jnp.ones(gradient.shape[:1], gradient.dtype)
    return lax.platform_dependent(
        gradient,
        cpu=lambda g: jnp.tensordot(ones, g, 1, precision=lax.Precision.HIGHEST),
        default=lambda g: g.sum(0),
    )


_add_to_each.defvjp(lambda x, bias: (x + bias, None), lambda _, g: (g, _sum_of_each(g)))


def attend_in_parts(query, key, value, scale, rel_h, rel_w):
    """`softmax_attention` over a map with a bias `rel_h + rel_w`, of some queries at a time.

    No array has the N * heads * L² elements of the whole bias or of all logits, not even in the
    gradient, unless they are few.

    Args:
        query: like `key` and `value` (N, heads, L, D), where L is h * w.
        key: see `query`.
        value: see `query`.
        scale: of the queries.
        rel_h: each query's bias by the row of the key, (N, heads, L, h) float32.
        rel_w: each query's bias by the column of the key, (N, heads, L, w) float32.
    """
    count, heads, length, _ = query.shape

    def attend(part):
        query, rel_h, rel_w = part
        bias = (rel_h[..., :, None] + rel_w[..., None, :]).reshape(*query.shape[:3], -1)
        return softmax_attention(query, key, value, scale, bias)

    def attend_all(most, least, *arrays):
        limit = max(least, most // (count * heads * length))  # queries in a part
        parts = next(p for p in range(1, length + 1) if length % p == 0 and length // p <= limit)
        if parts == 1:
            return attend(arrays)
        cut = [x.reshape(count, heads, parts, length // parts, -1) for x in arrays]
        y = lax.map(jax.checkpoint(attend), [jnp.moveaxis(x, 2, 0) for x in cut])
        return jnp.moveaxis(y, 0, 2).reshape(query.shape)

    return lax.platform_dependent(
        query,
        rel_h,
        rel_w,
        cpu=functools.partial(attend_all, _MOST_ON_CPU, 1),
        default=functools.partial(attend_all, _MOST_ELSEWHERE, _QUERIES_ELSEWHERE),
    )


def partition_windows(x, window: int, padding=None):
    """Pads (N, H, W, C) at the bottom and right and cuts it into windows.

    The padding is zero, or `padding` (C,) everywhere.

    Returns:
        The windows (N * windows, window², C) and the padded (height, width).
    """
    count, height, width, channels = x.shape
    pad_height, pad_width = -height % window, -width % window
    padding = jnp.zeros(channels, x.dtype) if padding is None else padding
    if pad_height:
        rows = jnp.broadcast_to(padding, (count, pad_height, width, channels))
        x, height = jnp.concatenate([x, rows], 1), height + pad_height
    if pad_width:
        columns = jnp.broadcast_to(padding, (count, height, pad_width, channels))
        x, width = jnp.concatenate([x, columns], 2), width + pad_width
    x = x.reshape(count, height // window, window, width // window, window, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (N, rows, columns, window, window, C)
    return x.reshape(-1, window * window, channels), (height, width)


def merge_windows(x, window: int, padded: tuple[int, int], size: tuple[int, int]):
    """Undoes `partition_windows`: (N * windows, window², C) to (N, *size, C)."""
    rows, columns = padded[0] // window, padded[1] // window
    x = x.reshape(-1, rows, columns, window, window, x.shape[-1])
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (N, rows, window, columns, window, C)
    return x.reshape(-1, *padded, x.shape[-1])[:, : size[0], : size[1]]
