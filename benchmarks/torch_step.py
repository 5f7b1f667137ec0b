"""An eager PyTorch training step, to compare ours with: `conversion/torch_stlm.py` being trained.

The published step on given samples: the teacher looks at the clean and the pseudo-anomalous images,
the losses of the paper, Adam on the streams and the decoder, SGD on the FA module.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_sam import Sam
from conversion.torch_model.segmentation import aggregate
from conversion.torch_model.tiny_vit import TinyViT
from conversion.torch_stlm import TorchStlm, Widths

_MARGIN = 1e-7


def mobile_sam() -> Sam:
    """The teacher MobileSAM."""
    widths = Widths()
    stages = (widths.embed_dims, widths.depths, widths.heads, widths.windows)
    return Sam(TinyViT(*stages, widths.channels), widths.channels, widths.decoder_mlp_dim)


def torch_step(
    clean: np.ndarray,
    pseudo: np.ndarray,
    mask: np.ndarray,
    teacher: nn.Module,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[], torch.Tensor]:
    """A call of the step on these samples, which returns the loss, on the device.

    Args:
        clean: (N, H, W, 3) uint8.
        pseudo: (N, H, W, 3) uint8.
        mask: (N, H, W), 0 or 1.
        teacher: its feature levels are what the streams imitate.
        device: that all is put on.
        dtype: what products and convolutions are computed in; parameters are float32.
    """
    torch.manual_seed(0)
    student = TorchStlm().train().to(device)
    teacher = teacher.eval().requires_grad_(False).to(device)
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
    images, changed = (torch.from_numpy(x).to(device) for x in (clean, pseudo))
    truth = torch.from_numpy(mask.astype(np.float32)).to(device)

    def normalised(x: torch.Tensor) -> torch.Tensor:
        return ((x.float() - student.mean) / student.std).permute(0, 3, 1, 2).contiguous()

    def objective() -> torch.Tensor:
        with torch.no_grad():
            of_pseudo, of_clean = (teacher(normalised(x)) for x in (changed, images))
        plain, denoising = student.features(changed)
        distances = [
            (1 - F.cosine_similarity(ours.float(), wanted.float())).mean()
            for ours, wanted in zip((*plain, *denoising), (*of_pseudo, *of_clean), strict=True)
        ]
        map_ = student.segmentation(aggregate(plain, denoising)).float()
        small = F.interpolate(truth[:, None], map_.shape[1:], mode="bilinear")[:, 0]
        target = (small >= 0.5).float()
        right = torch.where(target > 0, map_, 1 - map_).clamp(_MARGIN, 1 - _MARGIN)
        focal = (-right.log() * (1 - right) ** 4).mean()
        return torch.stack(distances).sum() + focal + (map_ - target).abs().mean()

    def step() -> torch.Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = objective()
        adam.zero_grad()
        sgd.zero_grad()
        loss.backward()
        adam.step()
        sgd.step()
        return loss.detach()

    return step
