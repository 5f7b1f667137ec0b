"""Normalisations and the GELU, whose gradients keep little: an input in its own dtype.

What jax keeps for the gradients of their formulas is several float32 arrays of an activation's
size, more than all products of the networks together.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

TORCH_LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default; flax's is 1e-6
LAYER_NORM_2D_EPSILON = 1e-6  # SAM's LayerNorm2d

ones, zeros = nn.initializers.ones, nn.initializers.zeros
_exporting = contextvars.ContextVar("exporting", default=False)


@contextlib.contextmanager
def for_export() -> Iterator[None]:
    """Has layers traced, within the context, in one plain form for all platforms.

    For exports to formats that know no platforms: a depthwise convolution is a grouped one, `gelu`
    jax's own and a norm its formula, which they have operators for. What was jitted before stays
    as it was traced.
    """
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def exporting() -> bool:
    """Whether this is within `for_export`."""
    return _exporting.get()


def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU, torch's default, by its formula.

    jax's own is by erfc, whose longer expansion XLA repeats in every operation that reads the
    result or its gradient: for TPUs that took twice as long to compile.
    """
    return nn.gelu(x, approximate=False) if exporting() else _erf_gelu(x)


@jax.custom_vjp
def _erf_gelu(x):
    return _gelu_and_derivative(x)[0]


def _gelu_and_derivative(x):
    wide = x.astype(jnp.float32)
    below = 0.5 * (1.0 + lax.erf(wide * math.sqrt(0.5)))  # the normal distribution's, at x
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2.0 * math.pi)
    return (wide * below).astype(x.dtype), (below + wide * density).astype(x.dtype)


_erf_gelu.defvjp(_gelu_and_derivative, lambda derivative, gradient: (gradient * derivative,))


def _standardise(x, axes, epsilon):
    x = x.astype(jnp.float32)
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    var = jnp.square(centred).mean(axes, keepdims=True)
    return centred * lax.rsqrt(var + epsilon), mean, var


def _formula(x, scale, bias, axes, epsilon, dtype):
    """Zero mean and unit variance over `axes`, then scale and bias over the last, in `dtype`.

    Returns it with mean and variance, through which no gradient goes.
    """
    y, mean, var = _standardise(x, axes, epsilon)
    return (y * scale + bias).astype(dtype), mean, var


_normalise = jax.custom_vjp(_formula, nondiff_argnums=(3, 4, 5))


def _normalise_forward(x, scale, bias, axes, epsilon, dtype):
    y, mean, var = _formula(x, scale, bias, axes, epsilon, dtype)
    return (y, mean, var), (x, scale, mean, lax.rsqrt(var + epsilon))


def _normalise_backward(axes, epsilon, dtype, saved, gradients):
    del epsilon, dtype
    x, scale, mean, inverse = saved
    # Behind the barrier XLA finds nothing of the forward pass that it had better kept.
    y = (lax.optimization_barrier(x).astype(jnp.float32) - mean) * inverse
    gradient = gradients[0].astype(jnp.float32)
    batch = tuple(range(x.ndim - 1))
    of_scale, of_bias = (gradient * y).sum(batch), gradient.sum(batch)
    if axes == batch:
        count = x.size // x.shape[-1]
        along, level = of_scale * (scale / count), of_bias * (scale / count)
    else:
        along = (gradient * scale * y).mean(axes, keepdims=True)
        level = (gradient * scale).mean(axes, keepdims=True)
    of_x = inverse * (gradient * scale - level - y * along)
    return of_x.astype(x.dtype), of_scale, of_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, computed in float32, returned in `dtype`.

    Over NHWC's channels this is SAM's `LayerNorm2d`.
    """

    epsilon: float = TORCH_LAYER_NORM_EPSILON
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """Normalises (..., C)."""
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        normalise = _formula if exporting() else _normalise
        return normalise(x, scale, bias, (x.ndim - 1,), self.epsilon, self.dtype)[0]


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d`: float32 statistics, running variance from the unbiased estimate.

    Flax's own BatchNorm keeps the biased one, so its evaluation would drift from torch's.
    """

    momentum: float = 0.9  # torch's 0.1, as the share kept
    epsilon: float = 1e-5  # torch's default
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """Normalises (N, H, W, C); with `train`, by the batch, and updates `batch_stats`."""
        channels = x.shape[-1]
        scale = self.param("scale", ones, (channels,))
        bias = self.param("bias", zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = lax.rsqrt(running_var.value + self.epsilon) * scale
            return ((x.astype(jnp.float32) - running_mean.value) * factor + bias).astype(self.dtype)
        axes = tuple(range(x.ndim - 1))
        y, mean, var = _normalise(x, scale, bias, axes, self.epsilon, self.dtype)
        if not self.is_initializing():
            mean, var = mean.reshape(-1), var.reshape(-1)
            count = x.size // channels
            unbiased = var * (count / max(count - 1, 1))
            keep, take = self.momentum, 1.0 - self.momentum
            running_mean.value = keep * running_mean.value + take * mean
            running_var.value = keep * running_var.value + take * unbiased
        return y
