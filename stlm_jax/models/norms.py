"""Normalisations and the GELU, as torch computes them."""

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
_shares = contextvars.ContextVar("shares", default=1)


@contextlib.contextmanager
def for_export() -> Iterator[None]:
    """Has layers traced, within the context, in one plain form for all platforms.

    For exports to formats that know no platforms: a depthwise convolution is a grouped one, and
    `gelu` jax's own, which they have operators for. What was jitted before stays as it was traced.
    """
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def exporting() -> bool:
    """Whether this is within `for_export`."""
    return _exporting.get()


@contextlib.contextmanager
def in_shares(shares: int) -> Iterator[None]:
    """Has batch normalisations that are traced within the context see each share by itself.

    Args:
        shares: how many equal parts a batch has, each of samples that follow one another, as a
            batch lies on so many devices; 1: the batch is whole.
    """
    token = _shares.set(shares)
    try:
        yield
    finally:
        _shares.reset(token)


def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU, torch's default, by its formula.

    jax's own is by erfc, whose longer expansion XLA repeats in every operation that reads the
    result or its gradient: for TPUs that took twice as long to compile.
    """
    if exporting():
        return nn.gelu(x, approximate=False)
    wide = x.astype(jnp.float32)
    return (wide * (0.5 * (1.0 + lax.erf(wide * math.sqrt(0.5))))).astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, computed in float32, returned in `dtype`.

    Over NHWC's channels this is SAM's `LayerNorm2d`. flax's own, without fast variance, multiplies
    in another order, whose gradient takes a quarter longer on CPU.
    """

    epsilon: float = TORCH_LAYER_NORM_EPSILON
    dtype: jnp.dtype = jnp.float32

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

    Within `in_shares` each share of the batch is normalised by its own statistics, as torch's
    `DistributedDataParallel` does it without `SyncBatchNorm`. The running ones are then the mean of
    the shares', where torch keeps those of the first process: evaluation shall know all images, and
    not depend on which of them came to the first device.
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
        shape, shares = x.shape, _shares.get()
        x = x.astype(jnp.float32)
        if not train:
            mean, var = running_mean.value, running_var.value
        else:
            apart = shares > 1
            if apart:
                x = x.reshape(shares, -1, *shape[1:])
            axes = tuple(range(apart, x.ndim - 1))
            mean = x.mean(axes, keepdims=apart)
            var = jnp.square(x - mean).mean(axes, keepdims=apart)
            count = x.size // (channels * shares)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep, take = self.momentum, 1.0 - self.momentum
                running_mean.value = keep * running_mean.value + take * _of_all(mean)
                running_var.value = keep * running_var.value + take * _of_all(unbiased)
        factor = lax.rsqrt(var + self.epsilon) * scale
        return ((x - mean) * factor + bias).reshape(shape).astype(self.dtype)


def _of_all(statistic):
    """The mean over the shares, (C,)."""
    return statistic if statistic.ndim == 1 else statistic.mean(tuple(range(statistic.ndim - 1)))
