"""Layers that SAM's, MobileSAM's and STLM's networks share."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Dtype = Any

# Training starts from `models/initialization.py`, which fills every parameter by published rules.
# What flax draws at `init`, here and in nn.Conv and nn.Dense, gives shapes and a plain other start.
ones, zeros, normal = nn.initializers.ones, nn.initializers.zeros, nn.initializers.normal

TORCH_LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default; flax's is 1e-6
LAYER_NORM_2D_EPSILON = 1e-6  # SAM's LayerNorm2d


def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU, torch's default."""
    return nn.gelu(x, approximate=False)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, computed in float32, returned in `dtype`.

    Over NHWC's channels this is SAM's `LayerNorm2d`. flax's own, without fast variance, multiplies
    in another order, whose gradient takes a quarter longer on CPU.
    """

    epsilon: float = TORCH_LAYER_NORM_EPSILON
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """Normalises (..., C)."""
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        centred = x - mean
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d`: float32 statistics, running variance from the unbiased estimate.

    Flax's own BatchNorm keeps the biased one, so its evaluation would drift from torch's.
    """

    momentum: float = 0.9  # torch's 0.1, as the share kept
    epsilon: float = 1e-5  # torch's default
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """Normalises (N, H, W, C); with `train`, by the batch, and updates `batch_stats`."""
        channels = x.shape[-1]
        scale = self.param("scale", ones, (channels,))
        bias = self.param("bias", zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        x = x.astype(jnp.float32)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            count = x.size // channels
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep, take = self.momentum, 1.0 - self.momentum
                running_mean.value = keep * running_mean.value + take * mean
                running_var.value = keep * running_var.value + take * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        factor = lax.rsqrt(var + self.epsilon) * scale
        return ((x - mean) * factor + bias).astype(self.dtype)


def _taps(padded, size, stride, out_width):
    """The columns of a padded map that each horizontal tap of a kernel sees."""
    return [padded[..., c : c + stride * (out_width - 1) + 1 : stride, :] for c in range(size)]


def _output_size(x, size, stride):
    return tuple((length + 2 * (size // 2) - size) // stride + 1 for length in x.shape[1:3])


def _pad_map(x, pad):
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_depthwise(x, kernel, stride):
    """Depthwise convolution as a sum of shifted products.

    The barriers, here and in the gradient, keep XLA's CPU backend from recomputing `x` in every
    tap.
    """
    size = kernel.shape[0]
    height, width = _output_size(x, size, stride)
    padded = _pad_map(lax.optimization_barrier(x), size // 2)
    total = 0.0
    for row in range(size):
        rows = padded[:, row : row + stride * (height - 1) + 1 : stride]
        for column, window in enumerate(_taps(rows, size, stride, width)):
            total = total + window * kernel[row, column, 0]
    return total


def _shifted_forward(x, kernel, stride):
    return _shifted_depthwise(x, kernel, stride), (x, kernel)


def _shifted_backward(stride, saved, gradient):
    x, kernel = saved
    x, gradient = lax.optimization_barrier((x, gradient))
    size = kernel.shape[0]
    height, width = gradient.shape[1:3]
    # With respect to x: the flipped kernel over the gradient, spread by the stride.
    zero = jnp.zeros((), gradient.dtype)
    spread = [
        (0, length - 1 - stride * (out - 1), stride - 1)
        for length, out in zip(x.shape[1:3], (height, width), strict=True)
    ]
    spread = lax.pad(gradient, zero, ((0, 0, 0), *spread, (0, 0, 0)))
    x_gradient = _shifted_depthwise(spread, kernel[::-1, ::-1], 1)
    # With respect to the kernel: row by row, a reduction that XLA's CPU backend vectorises.
    padded = _pad_map(x, size // 2)

    def add_row(row, total):
        rows = lax.dynamic_slice_in_dim(padded, row * stride, size, 1)  # (N, size, W, C)
        weight = lax.dynamic_slice_in_dim(gradient, row, 1, 1)  # (N, 1, W, C)
        taps = _taps(rows, size, stride, width)
        products = [(tap * weight).astype(jnp.float32).sum((0, 2)) for tap in taps]
        return total + jnp.stack(products, 1)  # (size, size, C)

    total = lax.fori_loop(0, height, add_row, jnp.zeros((size, size, x.shape[-1])))
    return x_gradient, total[:, :, None].astype(kernel.dtype)


_shifted_depthwise.defvjp(_shifted_forward, _shifted_backward)


def _grouped_depthwise(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


_always_grouped = contextvars.ContextVar("always_grouped", default=False)


@contextlib.contextmanager
def grouped_depthwise() -> Iterator[None]:
    """Has `DepthwiseConv` traced, within the context, as a grouped convolution for every platform.

    For exports to formats that know no platforms. What was jitted before stays as it was traced.
    """
    token = _always_grouped.set(True)
    try:
        yield
    finally:
        _always_grouped.reset(token)


class DepthwiseConv(nn.Module):
    """Depthwise convolution with torch's padding (kernel // 2).

    On CPU it is lowered to shifted multiply-adds: XLA's grouped convolution there is an order of
    magnitude slower. Accelerators, and exports within `grouped_depthwise`, get the grouped
    convolution.
    """

    kernel_size: int = 3
    stride: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, H, W, C) to (N, H/stride, W/stride, C)."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x, kernel, stride = x.astype(self.dtype), kernel.astype(self.dtype), self.stride
        if _always_grouped.get():
            return _grouped_depthwise(x, kernel, stride)
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda a, b: _shifted_depthwise(a, b, stride),
            default=lambda a, b: _grouped_depthwise(a, b, stride),
        )


class MLPBlock(nn.Module):
    """SAM's `MLPBlock`: two dense layers with an activation between."""

    hidden: int
    activation: Any = gelu
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(..., C) to (..., C)."""
        hidden = nn.Dense(self.hidden, dtype=self.dtype, name="lin1")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="lin2")(self.activation(hidden))


class Neck(nn.Module):
    """The neck of SAM's encoders: 1×1 and 3×3 convolution, each followed by LayerNorm2d."""

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, h, w, C) to (N, h, w, channels)."""
        conv = dict(features=self.channels, use_bias=False, dtype=self.dtype)
        norm = dict(epsilon=LAYER_NORM_2D_EPSILON, dtype=self.dtype)
        x = LayerNorm(**norm, name="1")(nn.Conv(kernel_size=(1, 1), **conv, name="0")(x))
        x = nn.Conv(kernel_size=(3, 3), padding=1, **conv, name="2")(x)
        return LayerNorm(**norm, name="3")(x)


def softmax_attention(query, key, value, scale, bias=None):
    """Multi-head attention over (N, heads, L, D), with the softmax in float32.

    `bias` is added to the logits and broadcasts to (N, heads, L_query, L_key).
    """
    logits = jnp.einsum("nhqd,nhkd->nhqk", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    weights = nn.softmax(logits.astype(jnp.float32), axis=-1).astype(value.dtype)
    return jnp.einsum("nhqk,nhkd->nhqd", weights, value)


def partition_windows(x, window: int):
    """Zero-pads (N, H, W, C) at the bottom and right and cuts it into windows.

    Returns:
        The windows (N * windows, window², C) and the padded (height, width).
    """
    count, height, width, channels = x.shape
    pad_height, pad_width = -height % window, -width % window
    x = jnp.pad(x, ((0, 0), (0, pad_height), (0, pad_width), (0, 0)))
    height, width = height + pad_height, width + pad_width
    x = x.reshape(count, height // window, window, width // window, window, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (N, rows, columns, window, window, C)
    return x.reshape(-1, window * window, channels), (height, width)


def merge_windows(x, window: int, padded: tuple[int, int], size: tuple[int, int]):
    """Undoes `partition_windows`: (N * windows, window², C) to (N, *size, C)."""
    rows, columns = padded[0] // window, padded[1] // window
    x = x.reshape(-1, rows, columns, window, window, x.shape[-1])
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (N, rows, window, columns, window, C)
    return x.reshape(-1, *padded, x.shape[-1])[:, : size[0], : size[1]]
