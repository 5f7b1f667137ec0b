"""STLM's feature aggregation (FA) module: from the two streams' features to an anomaly map."""

import jax.numpy as jnp
from flax import linen as nn

from stlm_jax.models.components import PUBLISHED, Components, chosen
from stlm_jax.models.layers import Dtype, conv
from stlm_jax.models.norms import BatchNorm
from stlm_jax.models.resize import resize_bilinear


def l2_normalise(x):
    """Unit vectors along the last axis, float32; 1e-12 is added to the norm, as published."""
    x = x.astype(jnp.float32)
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


def aggregate(plain, denoising, components: Components = PUBLISHED):
    """−(p̂ ⊙ d̂) of each level, concatenated over channels: (N, h, w, levels * C) float32.

    `plain` and `denoising` are the streams' features, one (N, h, w, C) a level. The factor of a
    stream that does not take part is 1, a level that does not is 0.
    """
    products = []
    for p, d, level in zip(plain, denoising, components.levels, strict=True):
        product = -chosen(components.plain, l2_normalise(p), 1.0) * chosen(
            components.denoising, l2_normalise(d), 1.0
        )
        products.append(chosen(level, product, 0.0))
    return jnp.concatenate(products, -1)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    features: int
    kernel_size: int = 1
    dilation: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, h, w, C) to (N, h, w, features)."""
        x = conv(self.features, self.kernel_size, self.dtype, "conv", dilation=self.dilation)(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="norm")(x, train))


class BasicBlock(nn.Module):
    """ResNet's basic block; a 1×1 convolution on the shortcut where the width changes."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, h, w, C) to (N, h, w, features)."""
        y = conv(self.features, 3, self.dtype, "conv1")(x)
        y = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(y, train))
        y = conv(self.features, 3, self.dtype, "conv2")(y)
        y = BatchNorm(dtype=self.dtype, name="bn2")(y, train)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, "downsample_0")(x)
            x = BatchNorm(dtype=self.dtype, name="downsample_1")(x, train)
        return nn.relu(x + y)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling, 1×1, dilated 3×3; fused by a 3×3."""

    features: int = 128
    rates: tuple[int, ...] = (1, 3)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, h, w, C) to (N, h, w, features)."""
        prefix = "aspp_feature_extractors"
        pooled = x.mean((1, 2), keepdims=True)
        pooled = ConvNormAct(self.features, dtype=self.dtype, name=f"{prefix}_0_1")(pooled, train)
        branches = [jnp.broadcast_to(pooled, (*x.shape[:3], self.features))]
        for index, rate in enumerate(self.rates, 1):
            branches.append(
                ConvNormAct(
                    self.features,
                    1 if rate == 1 else 3,
                    rate,
                    self.dtype,
                    name=f"{prefix}_{index}",
                )(x, train)
            )
        x = jnp.concatenate(branches, -1)
        return ConvNormAct(self.features, 3, dtype=self.dtype, name="aspp_fusion_layer")(x, train)


class Segmentation(nn.Module):
    """The FA module (paper, section 3.3): residual blocks, ASPP, convolutions, sigmoid."""

    features: int = 128
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """`aggregate`'s output (N, h, w, levels * C) to the map (N, h, w) float32 in 0..1."""
        x = BasicBlock(self.features, self.dtype, name="res_0")(x.astype(self.dtype), train)
        x = BasicBlock(self.features, self.dtype, name="res_1")(x, train)
        x = ASPP(self.features, dtype=self.dtype, name="head_0")(x, train)
        x = conv(self.features, 3, self.dtype, "head_1")(x)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="head_2")(x, train))
        x = nn.Conv(1, (1, 1), dtype=self.dtype, name="head_4")(x)
        return nn.sigmoid(x[..., 0].astype(jnp.float32))


def cosine_distance_map(plain, denoising, levels=(True, True)):
    """The map without FA: over the levels, the product of 1 − cos(p, d); (N, h, w) float32.

    `levels` says which of them count; so many factors of 0..2 it is a product of.
    """
    product = 1.0
    for p, d, level in zip(plain, denoising, levels, strict=True):
        distance = 1.0 - (l2_normalise(p) * l2_normalise(d)).sum(-1)
        product = product * chosen(level, distance, 1.0)
    return product


def upsample_map(anomaly_map, size: tuple[int, int]):
    """(N, h, w) to (N, *size), bilinear, float32."""
    return resize_bilinear(anomaly_map[..., None], size)[..., 0]
