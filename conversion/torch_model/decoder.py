"""The part of SAM's decoder that STLM uses, in PyTorch; named as the published tensors."""

import math

import torch
from torch import nn
from torch.nn import functional as F

HEADS = 8
DEPTH = 2
DOWNSAMPLE = 2  # of the inner width of the attention between tokens and image
MASK_TOKENS = 4


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of the positions of a map."""

    positional_encoding_gaussian_matrix: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        matrix = torch.randn(2, channels // 2)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def forward(self, height: int, width: int) -> torch.Tensor:
        """The encoding of a map, (height * width, channels)."""
        matrix = self.positional_encoding_gaussian_matrix
        y, x = (
            (torch.arange(length, device=matrix.device, dtype=matrix.dtype) + 0.5) / length
            for length in (height, width)
        )
        grid = torch.cartesian_prod(y, x).flip(-1)  # (h*w, [x, y])
        angle = 2 * math.pi * ((2 * grid - 1) @ matrix)
        return torch.cat([angle.sin(), angle.cos()], -1)


class PromptEncoder(nn.Module):
    """What there is without a prompt: the dense prompt and the positions."""

    def __init__(self, channels: int):
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(channels)
        self.no_mask_embed = nn.Embedding(1, channels)


class Attention(nn.Module):
    """Multi-head attention of inner width `inner`."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """(N, L_query, C), (N, L_key, C), (N, L_key, C) to (N, L_query, C)."""
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        heads = [x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in projected]
        y = F.scaled_dot_product_attention(*heads)  # (N, heads, L_query, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class MLPBlock(nn.Module):
    """Two dense layers with ReLU between."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) to the same."""
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens.

    In the `first` block the tokens are their own positions: its self-attention adds none and has
    no residual.
    """

    def __init__(self, channels: int, mlp_dim: int, first: bool):
        super().__init__()
        inner = channels // DOWNSAMPLE
        self.first = first
        self.self_attn = Attention(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = Attention(channels, inner)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, mlp_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = Attention(channels, inner)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (N, T, C) and image (N, h*w, C), each with its positions; both updated."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_positions
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_positions
        attended = self.cross_attn_token_to_image(tokens + token_positions, placed_image, image)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(placed_image, tokens + token_positions, tokens)
        return tokens, self.norm4(image + attended)


class TwoWayTransformer(nn.Module):
    """Exchanges information between a few tokens and the image embedding.

    The last attention updates the tokens only, which STLM does not use: its tensors are held so
    that published files load strictly, and it is not computed.
    """

    def __init__(self, channels: int, mlp_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(channels, mlp_dim, first=index == 0) for index in range(DEPTH)
        )
        self.final_attn_token_to_image = Attention(channels, channels // DOWNSAMPLE)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(
        self, image: torch.Tensor, image_positions: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Image (N, h*w, C), its positions (h*w, C), tokens (N, T, C) to the image, updated."""
        positions = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, positions, image_positions)
        return image


class MaskDecoder(nn.Module):
    """Tokens and two-way transformer; upscaling, hypernetworks and the IoU head are not built."""

    def __init__(self, channels: int, mlp_dim: int):
        super().__init__()
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, channels)
        self.transformer = TwoWayTransformer(channels, mlp_dim)


class SharedDecoder(nn.Module):
    """The prompt constants and the mask decoder that both streams use."""

    def __init__(self, channels: int, mlp_dim: int):
        super().__init__()
        self.prompt_encoder = PromptEncoder(channels)
        self.mask_decoder = MaskDecoder(channels, mlp_dim)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Embedding, feature 1, to feature 2; both (N, C, h, w)."""
        height, width = embedding.shape[2:]
        prompts, decoder = self.prompt_encoder, self.mask_decoder
        image = embedding.flatten(2).transpose(1, 2) + prompts.no_mask_embed.weight  # (N, h*w, C)
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = tokens.expand(len(image), -1, -1)  # (N, T, C)
        image = decoder.transformer(image, prompts.pe_layer(height, width), tokens)
        return image.transpose(1, 2).unflatten(2, (height, width))
