"""SAM's ViT image encoder in PyTorch, to compare ours with; modules named as published tensors.

Attention is PyTorch's fused one with the relative positions as its mask, which is faster than the
published code's products and softmax one after the other.
"""

import torch
from torch import nn
from torch.nn import functional as F

from conversion.torch_model.decoder import MLPBlock, SharedDecoder
from conversion.torch_model.tiny_vit import LayerNorm2d

PATCH = 16  # pixels
_NORM = 1e-6


def _relative(table: torch.Tensor, size: int) -> torch.Tensor:
    """Rows (size, size, D) of a table (2 * size - 1, D) by query and key."""
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + size - 1]


class Attention(nn.Module):
    """Multi-head attention over a map of `size`² places."""

    def __init__(self, channels: int, heads: int, size: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, channels // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, channels // heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, h, w, C) to the same."""
        count, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(count, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, h*w, D)
        grid = query.unflatten(2, (height, width))
        by_row = torch.einsum("nayxd,ykd->nayxk", grid, _relative(self.rel_pos_h, height))
        by_column = torch.einsum("nayxd,xkd->nayxk", grid, _relative(self.rel_pos_w, width))
        bias = by_row[..., :, None] + by_column[..., None, :]
        bias = bias.reshape(count, self.heads, height * width, height * width).to(query.dtype)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(count, height, width, channels))


class Block(nn.Module):
    """A transformer block; `window` 0 attends over the whole map of `grid`² places."""

    def __init__(self, channels: int, heads: int, window: int, grid: int):
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels, _NORM)
        self.attn = Attention(channels, heads, window or grid)
        self.norm2 = nn.LayerNorm(channels, _NORM)
        self.mlp = MLPBlock(channels, 4 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, h, w, C) to the same; windows are padded after the norm, unmasked, as published."""
        x = x + self._attend(self.norm1(x))
        y = self.norm2(x)
        return x + self.mlp.lin2(F.gelu(self.mlp.lin1(y)))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        side = self.window
        if not side:
            return self.attn(x)
        count, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(count, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side, side, channels))
        x = x.reshape(count, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(count, rows * side, columns * side, channels)[:, :height, :width]


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)


class ImageEncoderViT(nn.Module):
    """The encoder for maps of `grid`² places, of which position tables are made."""

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        global_blocks: tuple[int, ...],
        window: int,
        grid: int,
        out_channels: int = 256,
    ):
        super().__init__()
        self.patch_embed = _PatchEmbed(channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, channels))
        windows = [0 if index in global_blocks else window for index in range(depth)]
        self.blocks = nn.Sequential(*(Block(channels, heads, side, grid) for side in windows))
        self.neck = nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised image (N, 3, H, W) to the embedding (N, out_channels, H/16, W/16)."""
        x = self.patch_embed.proj(x).permute(0, 2, 3, 1) + self.pos_embed
        return self.neck(self.blocks(x).permute(0, 3, 1, 2))


class Sam(nn.Module):
    """A teacher: both feature levels of images."""

    def __init__(self, image_encoder: nn.Module, channels: int = 256, mlp_dim: int = 2048):
        super().__init__()
        self.image_encoder = image_encoder
        self.decoder = SharedDecoder(channels, mlp_dim)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (N, 3, H, W) to the levels (N, C, h, w)."""
        embedding = self.image_encoder(pixels)
        return embedding, self.decoder(embedding)
