"""TinyViT in PyTorch, for inference; modules are named as the published tensors."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

MLP_RATIO = 4
EXPANSION = 4  # of MBConv's hidden channels


class LayerNorm2d(nn.LayerNorm):
    """SAM's `LayerNorm2d`: layer normalisation over the channels of a map."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) to the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvBN(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel_size: int = 1,
        stride: int = 1,
        depthwise: bool = False,
    ):
        super().__init__()
        self.c = nn.Conv2d(
            channels,
            features,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=channels if depthwise else 1,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) to (N, features, H/stride, W/stride)."""
        return self.bn(self.c(x))


class InvertedBottleneck(nn.Module):
    """1×1, depthwise 3×3 and 1×1 convolution with GELU between: MBConv's and merging's trunk."""

    def __init__(self, channels: int, hidden: int, features: int, stride: int = 1):
        super().__init__()
        self.conv1 = ConvBN(channels, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, stride, depthwise=True)
        self.conv3 = ConvBN(hidden, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) to (N, features, H/stride, W/stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class MBConv(InvertedBottleneck):
    """Inverted residual block with GELU after the sum."""

    def __init__(self, channels: int):
        super().__init__(channels, EXPANSION * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        return F.gelu(x + super().forward(x))


class Attention(nn.Module):
    """Attention inside one window, with a bias for each |dy|, |dx| offset."""

    bias_index: torch.Tensor

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        axis = torch.arange(window)
        y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        index = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("bias_index", index, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(windows, window², C) to the same."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.heads, 3, -1))
        query, key, value = qkv.permute(3, 0, 2, 1, 4)  # each (windows, heads, L, D)
        bias = self.attention_biases[:, self.bias_index]  # (heads, L, L)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Pre-normalised two-layer perceptron."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) to the same."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, an MLP.

    The map is zero-padded at the bottom and right to whole windows before the attention's norm,
    and the padding is not masked, as published.
    """

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = Attention(channels, heads, window)
        self.local_conv = ConvBN(channels, channels, 3, depthwise=True)
        self.mlp = Mlp(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) to the same."""
        x = x + self._attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """(N, h, w, C) to the same."""
        count, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(count, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.reshape(count, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(count, rows * side, columns * side, channels)
        return x[:, :height, :width]


class Stage(nn.Module):
    """Blocks, then the merging into the next stage's channels, where there is a next one."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) to what the merging makes of it."""
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """Two stride-2 convolutions: the image at 1/4 scale."""

    def __init__(self, features: int):
        super().__init__()
        self.seq = nn.Sequential(
            ConvBN(3, features // 2, 3, 2), nn.GELU(), ConvBN(features // 2, features, 3, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, features, H/4, W/4)."""
        return self.seq(x)


class TinyViT(nn.Module):
    """MobileSAM's image encoder. Its classifier, `head` and `norm_head`, is not built.

    `embed_dims` are the channels, `depths` the blocks, `heads` the attention heads and `windows`
    the sides of the attention windows of the four stages. The first stage is convolutional: what
    `heads` and `windows` say of it is not used.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        windows: Sequence[int],
        out_channels: int,
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(embed_dims[0])
        last = len(depths) - 1
        stages = []
        for index, (channels, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            blocks = [
                TinyViTBlock(channels, heads[index], windows[index]) if index else MBConv(channels)
                for _ in range(depth)
            ]
            merging = None
            if index < last:
                merged = embed_dims[index + 1]
                stride = 1 if index == last - 1 else 2
                merging = InvertedBottleneck(channels, merged, merged, stride)
            stages.append(Stage(blocks, merging))
        self.layers = nn.Sequential(*stages)
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised image (N, 3, H, W) to the embedding (N, out_channels, H/16, W/16)."""
        return self.neck(self.layers(self.patch_embed(x)))
