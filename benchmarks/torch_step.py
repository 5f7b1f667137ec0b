"""An eager PyTorch training step, to compare ours with: `conversion/torch_stlm.py` being trained.

The published step on given samples: MobileSAM as the teacher looks at the clean and the
pseudo-anomalous images, the losses of the paper, Adam on the streams and the decoder, SGD on the FA
module.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from conversion.torch_model.decoder import SharedDecoder
from conversion.torch_model.segmentation import aggregate
from conversion.torch_model.tiny_vit import TinyViT
from conversion.torch_stlm import TorchStlm, Widths

_MARGIN = 1e-7


class MobileSam(nn.Module):
    """The teacher: both feature levels of images."""

    def __init__(self) -> None:
        super().__init__()
        widths = Widths()
        stages = (widths.embed_dims, widths.depths, widths.heads, widths.windows)
        self.image_encoder = TinyViT(*stages, widths.channels)
        self.decoder = SharedDecoder(widths.channels, widths.decoder_mlp_dim)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (N, 3, H, W) to the levels (N, C, h, w)."""
        embedding = self.image_encoder(pixels)
        return embedding, self.decoder(embedding)


def torch_step(clean: np.ndarray, pseudo: np.ndarray, mask: np.ndarray) -> Callable[[], float]:
    """A call of the step on these samples, which returns the loss.

    Args:
        clean: (N, H, W, 3) uint8.
        pseudo: (N, H, W, 3) uint8.
        mask: (N, H, W), 0 or 1.
    """
    torch.manual_seed(0)
    student, teacher = TorchStlm().train(), MobileSam().eval().requires_grad_(False)
    streams = [student.encoderT, student.encoderS, student.model]
    adam = torch.optim.Adam([p for part in streams for p in part.parameters()], 5e-4, (0.5, 0.999))
    sgd = torch.optim.SGD(
        [
            {"params": student.segmentation.res.parameters(), "lr": 0.1},
            {"params": student.segmentation.head.parameters(), "lr": 0.01},
        ],
        momentum=0.9,
        weight_decay=1e-4,
    )
    images, changed = torch.from_numpy(clean), torch.from_numpy(pseudo)
    truth = torch.from_numpy(mask.astype(np.float32))

    def normalised(x: torch.Tensor) -> torch.Tensor:
        return ((x.float() - student.mean) / student.std).permute(0, 3, 1, 2).contiguous()

    def step() -> float:
        with torch.no_grad():
            of_pseudo, of_clean = (teacher(normalised(x)) for x in (changed, images))
        plain, denoising = student.features(changed)
        distances = [
            (1 - F.cosine_similarity(ours, wanted)).mean()
            for ours, wanted in zip((*plain, *denoising), (*of_pseudo, *of_clean), strict=True)
        ]
        map_ = student.segmentation(aggregate(plain, denoising))
        small = F.interpolate(truth[:, None], map_.shape[1:], mode="bilinear")[:, 0]
        target = (small >= 0.5).float()
        right = torch.where(target > 0, map_, 1 - map_).clamp(_MARGIN, 1 - _MARGIN)
        focal = (-right.log() * (1 - right) ** 4).mean()
        loss = torch.stack(distances).sum() + focal + (map_ - target).abs().mean()
        adam.zero_grad()
        sgd.zero_grad()
        loss.backward()
        adam.step()
        sgd.step()
        return float(loss.detach())

    return step
