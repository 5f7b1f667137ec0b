"""STLM's feature aggregation (FA) module in PyTorch; named as the published tensors."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

Features = Sequence[torch.Tensor]  # of one stream: levels 1 and 2, each (N, C, h, w)

ASPP_RATES = (1, 3)


def l2_normalise(x: torch.Tensor) -> torch.Tensor:
    """Unit vectors along the channels of (N, C, h, w); 1e-12 is added to the norm, as published."""
    return x / (x.norm(dim=1, keepdim=True) + 1e-12)


def aggregate(plain: Features, denoising: Features) -> torch.Tensor:
    """−(p̂ ⊙ d̂) of each level, concatenated: (N, levels * C, h, w)."""
    pairs = zip(plain, denoising, strict=True)
    return torch.cat([-l2_normalise(p) * l2_normalise(d) for p, d in pairs], 1)


def cosine_distance_map(plain: Features, denoising: Features) -> torch.Tensor:
    """The map without FA: over the levels, the product of 1 − cos(p, d); (N, h, w)."""
    pairs = zip(plain, denoising, strict=True)
    distances = [1 - (l2_normalise(p) * l2_normalise(d)).sum(1) for p, d in pairs]
    return torch.stack(distances).prod(0)


class BasicBlock(nn.Module):
    """ResNet's basic block; a 1×1 convolution on the shortcut where the width changes."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.downsample = None
        if channels != features:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, features, 1, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) to (N, features, h, w)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels: int, features: int, kernel_size: int = 1, dilation: int = 1):
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            channels, features, kernel_size, padding=padding, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) to (N, features, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling, 1×1, dilated 3×3; fused by a 3×3."""

    def __init__(self, features: int):
        super().__init__()
        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(features, features))
        branches = [
            ConvNormAct(features, features, 1 if rate == 1 else 3, rate) for rate in ASPP_RATES
        ]
        self.aspp_feature_extractors = nn.ModuleList([pooling, *branches])
        self.aspp_fusion_layer = ConvNormAct((1 + len(branches)) * features, features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, features, h, w) to the same."""
        branches = [branch(x) for branch in self.aspp_feature_extractors]
        branches[0] = branches[0].expand_as(x)
        return self.aspp_fusion_layer(torch.cat(branches, 1))


class Segmentation(nn.Module):
    """Residual blocks, ASPP, convolutions, sigmoid (paper, section 3.3)."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.res = nn.Sequential(BasicBlock(channels, features), BasicBlock(features, features))
        self.head = nn.Sequential(
            ASPP(features),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`aggregate`'s output (N, channels, h, w) to the map (N, h, w) in 0..1."""
        return self.head(self.res(x))[:, 0]
