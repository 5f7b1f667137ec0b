"""Layers that SAM's, MobileSAM's and STLM's networks share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from stlm_jax.models.norms import LAYER_NORM_2D_EPSILON, LayerNorm, exporting, gelu

Dtype = Any

# Training starts from `models/initialization.py`, which fills every parameter by published rules.
# What flax draws at `init`, here and in nn.Conv and nn.Dense, gives shapes and a plain other start.
zeros, normal = nn.initializers.zeros, nn.initializers.normal


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


class DepthwiseConv(nn.Module):
    """Depthwise convolution with torch's padding (kernel // 2).

    On CPU it is lowered to shifted multiply-adds: XLA's grouped convolution there is an order of
    magnitude slower. Accelerators, and exports within `for_export`, get the grouped
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
        if exporting():
            return _grouped_depthwise(x, kernel, stride)
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda a, b: _shifted_depthwise(a, b, stride),
            default=lambda a, b: _grouped_depthwise(a, b, stride),
        )


@jax.custom_vjp
def _pointwise(x, kernel):
    """(…, C) by (C, features)."""
    return jnp.dot(x, kernel)


def _pointwise_backward(saved, gradient):
    x, kernel = saved
    maps = tuple(range(x.ndim - 1))
    contracted = ((maps, maps), ((), ()))
    # XLA's CPU backend transposes the left operand in memory: that is the one of fewer channels.
    if x.shape[-1] <= gradient.shape[-1]:
        of_kernel = lax.dot_general(x, gradient, contracted)
    else:
        of_kernel = lax.dot_general(gradient, x, contracted).T
    return jnp.dot(gradient, kernel.T), of_kernel


_pointwise.defvjp(lambda x, kernel: (jnp.dot(x, kernel), (x, kernel)), _pointwise_backward)


def _dense_product(x, kernel, dimension_numbers, precision=None):
    """`lax.dot_general` as `nn.Dense` calls it, over the last axis, in the process's precision."""
    assert precision is None
    return lax.dot_general(x, kernel, dimension_numbers) if exporting() else _pointwise(x, kernel)


dense = functools.partial(nn.Dense, dot_general=_dense_product)


class PointwiseConv(nn.Module):
    """A 1×1 convolution without bias.

    It is lowered to a product of matrices, of which XLA's CPU backend computes the gradient several
    times faster; exports within `for_export` get the convolution.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, H, W, C) to (N, H, W, features)."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if exporting():
            return lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return _pointwise(x, kernel[0, 0])


def conv(features: int, kernel_size: int, dtype: Dtype, name: str, *, stride=1, dilation=1):
    """The module of a convolution without bias, padded by dilation * (kernel_size // 2)."""
    if kernel_size == stride == 1:
        return PointwiseConv(features, dtype, name=name)
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        stride,
        padding=dilation * (kernel_size // 2),
        kernel_dilation=dilation,
        use_bias=False,
        dtype=dtype,
        name=name,
    )


class MLPBlock(nn.Module):
    """SAM's `MLPBlock`: two dense layers with an activation between."""

    hidden: int
    activation: Any = gelu
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(..., C) to (..., C)."""
        hidden = dense(self.hidden, dtype=self.dtype, name="lin1")(x)
        return dense(x.shape[-1], dtype=self.dtype, name="lin2")(self.activation(hidden))


class Neck(nn.Module):
    """The neck of SAM's encoders: 1×1 and 3×3 convolution, each followed by LayerNorm2d."""

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, h, w, C) to (N, h, w, channels)."""
        norm = dict(epsilon=LAYER_NORM_2D_EPSILON, dtype=self.dtype)
        x = LayerNorm(**norm, name="1")(conv(self.channels, 1, self.dtype, "0")(x))
        x = conv(self.channels, 3, self.dtype, "2")(x)
        return LayerNorm(**norm, name="3")(x)
