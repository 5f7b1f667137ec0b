"""TinyViT, MobileSAM's image encoder (published module: `mobile_sam/modeling/tiny_vit_sam.py`)."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stlm_jax.models.attention import merge_windows, partition_windows, softmax_attention
from stlm_jax.models.layers import DepthwiseConv, Dtype, Neck, conv, dense, zeros
from stlm_jax.models.norms import BatchNorm, LayerNorm, gelu
from stlm_jax.models.remat import rematerialised


class ConvBN(nn.Module):
    """`Conv2d_BN`: a convolution without bias, `c`, and its batch normalisation, `bn`."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, H, W, C) to (N, H/stride, W/stride, features)."""
        if self.depthwise:
            x = DepthwiseConv(self.kernel_size, self.stride, self.dtype, name="c")(x)
        else:
            x = conv(self.features, self.kernel_size, self.dtype, "c", stride=self.stride)(x)
        return BatchNorm(dtype=self.dtype, name="bn")(x, train)


class PatchEmbed(nn.Module):
    """Two stride-2 convolutions: the image at 1/4 scale."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, H, W, 3) to (N, H/4, W/4, features)."""
        x = ConvBN(self.features // 2, 3, 2, dtype=self.dtype, name="seq_0")(x, train)
        return ConvBN(self.features, 3, 2, dtype=self.dtype, name="seq_2")(gelu(x), train)


class MBConv(nn.Module):
    """Inverted residual block with GELU after the sum."""

    expand: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, H, W, C) to the same."""
        channels = x.shape[-1]
        hidden = channels * self.expand
        y = gelu(ConvBN(hidden, dtype=self.dtype, name="conv1")(x, train))
        y = ConvBN(hidden, 3, depthwise=True, dtype=self.dtype, name="conv2")(y, train)
        y = ConvBN(channels, dtype=self.dtype, name="conv3")(gelu(y), train)
        return gelu(x + y)


class PatchMerging(nn.Module):
    """Changes the channels and, with stride 2, halves the map."""

    features: int
    stride: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, H, W, C) to (N, H/stride, W/stride, features)."""
        conv_bn = functools.partial(ConvBN, self.features, dtype=self.dtype)
        x = gelu(conv_bn(name="conv1")(x, train))
        x = conv_bn(3, self.stride, depthwise=True, name="conv2")(x, train)
        return conv_bn(name="conv3")(gelu(x), train)


class Attention(nn.Module):
    """Attention inside windows, with a bias for each |dy|, |dx| offset.

    As published, the map is zero-padded to whole windows before the norm, and the padding is not
    masked. Norm and projections know no neighbours: they see the map without its padding, and
    what they make of a zero is computed once.
    """

    heads: int
    window: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(N, h, w, C) to the same."""
        size, channels = x.shape[1:3], x.shape[-1]
        depth, length = channels // self.heads, self.window**2
        biases = self.param("attention_biases", zeros, (self.heads, length))
        row, column = np.divmod(np.arange(length), self.window)
        offsets = np.abs(row[:, None] - row) * self.window + np.abs(column[:, None] - column)
        norm = LayerNorm(dtype=self.dtype, name="norm")
        project = dense(3 * channels, dtype=self.dtype, name="qkv")
        windows = project(norm(x))
        of_zero = norm.variables["params"]["bias"].astype(self.dtype)
        windows, padded = partition_windows(windows, self.window, project(of_zero))
        qkv = windows.reshape(-1, length, self.heads, 3, depth).transpose(3, 0, 2, 1, 4)
        y = softmax_attention(*qkv, depth**-0.5, biases[:, offsets])  # (windows, heads, L, D)
        y = y.transpose(0, 2, 1, 3).reshape(-1, length, channels)
        y = merge_windows(y, self.window, padded, size)
        return dense(channels, dtype=self.dtype, name="proj")(y)


class Mlp(nn.Module):
    """Pre-normalised two-layer perceptron."""

    ratio: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """(..., C) to the same."""
        channels = x.shape[-1]
        y = LayerNorm(dtype=self.dtype, name="norm")(x)
        y = gelu(dense(channels * self.ratio, dtype=self.dtype, name="fc1")(y))
        return dense(channels, dtype=self.dtype, name="fc2")(y)


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, an MLP."""

    heads: int
    window: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, h, w, C) to the same."""
        x = x + Attention(self.heads, self.window, self.dtype, name="attn")(x)
        x = ConvBN(x.shape[-1], 3, depthwise=True, dtype=self.dtype, name="local_conv")(x, train)
        return x + Mlp(dtype=self.dtype, name="mlp")(x)


class Stage(nn.Module):
    """One of the four stages: blocks, then the merging into the next stage's channels.

    `heads` 0 makes it the convolutional first stage. `features_out` 0 ends without merging.
    `remat` says what training keeps of each block, see `rematerialised`.
    """

    depth: int
    heads: int
    window: int
    features_out: int
    stride: int
    dtype: Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x, train: bool):
        """(N, h, w, C) to (N, h/stride, w/stride, features_out or C)."""

        def lift(block):
            return rematerialised(block, self.remat) if train else block

        for index in range(self.depth):
            name = f"blocks_{index}"
            if self.heads:
                x = lift(TinyViTBlock)(self.heads, self.window, self.dtype, name=name)(x, train)
            else:
                x = lift(MBConv)(dtype=self.dtype, name=name)(x, train)
        if self.features_out:
            merging = lift(PatchMerging)
            x = merging(self.features_out, self.stride, self.dtype, name="downsample")(x, train)
        return x


class TinyViT(nn.Module):
    """The lightweight encoder of both streams and of MobileSAM. Maps of any size.

    The checkpoints' classification layers `head` and `norm_head` are never used and not built.
    """

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    out_channels: int = 256
    dtype: Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Normalised image (N, H, W, 3) to the embedding (N, H/16, W/16, out_channels)."""
        x = PatchEmbed(self.embed_dims[0], self.dtype, name="patch_embed")(x, train)
        last = len(self.depths) - 1
        for index, depth in enumerate(self.depths):
            x = Stage(
                depth,
                heads=self.heads[index] if index else 0,
                window=self.windows[index],
                features_out=self.embed_dims[index + 1] if index < last else 0,
                stride=1 if index == last - 1 else 2,
                dtype=self.dtype,
                remat=self.remat,
                name=f"layers_{index}",
            )(x, train)
        return Neck(self.out_channels, self.dtype, name="neck")(x)
