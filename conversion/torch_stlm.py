"""STLM in PyTorch, for inference, from tensors of the published names.

Example:
    model = TorchStlm.load("stlm.pt")
    result = model(torch.from_numpy(images))  # uint8 (N, H, W, 3), RGB, resized as for training
    result["anomaly_map"], result["anomaly_score"]
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from conversion.torch_model.decoder import SharedDecoder
from conversion.torch_model.segmentation import Segmentation, aggregate, cosine_distance_map
from conversion.torch_model.tiny_vit import TinyViT
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note
from stlm_jax.weights.description import Description
from stlm_jax.weights.digest import CONTENT, tell_without_digest, weights_digest
from stlm_jax.weights.names import UNUSED, flax_path, from_torch_layout
from stlm_jax.weights.shapes import require_finite
from stlm_jax.weights.sidecar import check_pair, read_description
from stlm_jax.weights.torch_file import open_state_dict

Path = str | pathlib.Path
Tensors = Mapping[str, torch.Tensor]

PIXEL_MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in 0..255 units, as SAM uses
PIXEL_STD = (58.395, 57.12, 57.375)
STRIDE = 16  # pixels of the image to one of the features


@dataclasses.dataclass(frozen=True)
class Widths:
    """What tells one STLM from another; the defaults are the published model.

    Attributes:
        embed_dims, depths, heads, windows: of the four stages of both TinyViT encoders; the first
            stage is convolutional and has neither heads nor windows.
        channels: of both feature levels.
        decoder_mlp_dim: hidden width of the two-way transformer's MLP.
        segmentation_channels: width of the FA module.
    """

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (0, 4, 5, 10)
    windows: tuple[int, ...] = (0, 7, 14, 7)
    channels: int = 256
    decoder_mlp_dim: int = 2048
    segmentation_channels: int = 128

    @classmethod
    def of(cls, tensors: Tensors) -> "Widths":
        """The widths of a state dict, from the shapes of its tensors."""

        def shape(name: str) -> torch.Size:
            if name not in tensors:
                raise UserError(
                    f"not an STLM, the tensor {name} is missing"
                    " (published, it is two files: give the FA module's as `segmentation`)"
                )
            return tensors[name].shape

        stage_of_block = re.compile(r"encoderT\.layers\.(\d)\.blocks\.(\d+)\.")
        blocks = {match.groups() for name in tensors if (match := stage_of_block.match(name))}
        stages = [f"encoderT.layers.{stage}" for stage in range(4)]
        merged = [shape(f"{stage}.downsample.conv3.c.weight")[0] for stage in stages[:-1]]
        biases = [shape(f"{stage}.blocks.0.attn.attention_biases") for stage in stages[1:]]
        return cls(
            embed_dims=(shape("encoderT.patch_embed.seq.2.c.weight")[0], *merged),
            depths=tuple(
                sum(stage == str(index) for stage, _ in blocks) for index in range(len(stages))
            ),
            heads=(0, *(heads for heads, _ in biases)),
            windows=(0, *(math.isqrt(offsets) for _, offsets in biases)),
            channels=shape("encoderT.neck.0.weight")[0],
            decoder_mlp_dim=shape("model.mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
            segmentation_channels=shape("segmentation.head.1.weight")[0],
        )


class TorchStlm(nn.Module):
    """The two-stream model: images in, full-size anomaly maps and scores out.

    `encoderT` is the plain stream, `encoderS` the denoising stream, `model` the shared decoder.
    The image score is the mean of the `score_top_k` largest pixels of the map. `description` is
    what the file says of the model: the size and geometry of the squares that it was trained on,
    and its thresholds; None where that is not known.
    """

    description: Description | None = None
    _has_warned = False
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, widths: Widths = Widths(), score_top_k: int = 100):
        super().__init__()
        self.score_top_k = score_top_k
        stages = (widths.embed_dims, widths.depths, widths.heads, widths.windows)
        self.encoderT = TinyViT(*stages, widths.channels)
        self.encoderS = TinyViT(*stages, widths.channels)
        self.model = SharedDecoder(widths.channels, widths.decoder_mlp_dim)
        self.segmentation = Segmentation(2 * widths.channels, widths.segmentation_channels)
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD), persistent=False)

    @classmethod
    def load(cls, path: Path, segmentation: Path | None = None) -> "TorchStlm":
        """The model of a weights file, as `from_state_dict` makes it.

        What `conversion.to_torch` wrote into it is checked, and is then its `description`.

        Args:
            path: `.pt`, `.pth` or `.safetensors` file of both the two-stream tensors and, prefixed
                'segmentation.', those of the FA module; or the published two-stream file.
            segmentation: the published FA file that belongs to a published two-stream file.
        """
        tensors, metadata = open_state_dict(path)
        opened = {path: metadata}
        if segmentation is not None:
            other, opened[segmentation] = open_state_dict(segmentation)
            tensors |= {f"segmentation.{name}": tensor for name, tensor in other.items()}
        arrays = {name: np.array(x, np.float32) for name, x in tensors.items()}
        try:
            model = cls.from_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        described = read_description(path, metadata, lambda: _weights_digest(arrays))
        if segmentation is not None:
            check_pair(path, described, segmentation, opened[segmentation])
        model._describe(path, described)
        for file, said in opened.items():
            if not described and CONTENT not in said:
                tell_without_digest(file)
        return model

    def _describe(self, path: Path, described: Mapping[str, Any]) -> None:
        if "image_size" in described:
            self.description = Description.read(path, described)
            self.score_top_k = self.description.score_top_k
        if self.description is None or self.description.calibration is None:
            size = "" if self.description else ", nor the size of the images that it was trained on"
            note(f"{path}: its thresholds are not known{size}; its scores are not judged")

    @classmethod
    def from_state_dict(cls, tensors: Tensors) -> "TorchStlm":
        """The model of these tensors, in evaluation mode, without gradients, float32, on the CPU.

        Names are the published ones, the FA module's prefixed 'segmentation.'; known-unused
        tensors may be among them, others that the model lacks may not.
        """
        used = {name: x for name, x in tensors.items() if not UNUSED.search(name)}
        for name, tensor in used.items():
            require_finite("state dict", name, tensor.detach().float().numpy())
        model = cls(Widths.of(used))
        try:
            model.load_state_dict(used, strict=True)
        except RuntimeError as error:  # torch's list of all that is wrong, a line each
            faults = "; ".join(line.strip() for line in str(error).splitlines()[1:])
            raise UserError(f"the weights are of another model; {faults}") from None
        return model.eval().requires_grad_(False)

    def features(
        self, images: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Features 1 and 2 of the plain and of the denoising stream of images, as of `forward`.

        They are (plain1, plain2), (denoising1, denoising2), each (N, C, H/16, W/16) float32.
        """
        _check(images)
        pixels = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)  # (N, 3, H, W)
        embeddings = torch.cat([self.encoderT(pixels), self.encoderS(pixels)])
        plain1, denoising1 = embeddings.chunk(2)
        plain2, denoising2 = self.model(embeddings).chunk(2)
        return (plain1, plain2), (denoising1, denoising2)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Anomaly maps and scores of images, uint8 (N, H, W, 3), RGB; H and W multiples of 16.

        Returns:
            'anomaly_map' and 'anomaly_map_without_fa' (N, H, W), 'anomaly_score' and
            'anomaly_score_without_fa' (N,), float32.
        """
        plain, denoising = self.features(images)
        self._compare_size(images)
        small_maps = {
            "": self.segmentation(aggregate(plain, denoising)),
            "_without_fa": cosine_distance_map(plain, denoising),
        }
        result = {}
        for suffix, small in small_maps.items():
            full = F.interpolate(small[:, None], images.shape[1:3], mode="bilinear")[:, 0]
            largest = full.flatten(1).topk(min(self.score_top_k, full[0].numel())).values
            result[f"anomaly_map{suffix}"] = full
            result[f"anomaly_score{suffix}"] = largest.mean(1)
        _require_finite_maps(result)
        return result

    def _compare_size(self, images: torch.Tensor) -> None:
        known, (height, width) = self.description, images.shape[1:3]
        if known and (height, width) != (known.image_size,) * 2 and not self._has_warned:
            self._has_warned = True
            note(
                f"warning: images of {height}x{width} px, but the model was trained at "
                f"{known.image_size}x{known.image_size}: its thresholds do not hold"
            )


def _weights_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """The digest of these tensors of the published names as variables of the Flax model."""
    variables = {}
    for name, x in tensors.items():
        if not UNUSED.search(name):
            path = flax_path(name, x.ndim)
            variables["/".join(path)] = from_torch_layout(path[-1], x)
    return weights_digest(variables)


def _require_finite_maps(result: Mapping[str, torch.Tensor]) -> None:
    for values in result.values():
        finite = values.detach().reshape(len(values), -1).isfinite().all(1)
        if not finite.all():
            first = int(finite.logical_not().nonzero()[0, 0]) + 1
            raise UserError(
                f"image {first} of {len(finite)}: its anomaly map or score is not finite; the "
                "weights are not those of a trained model"
            )


def _check(images: torch.Tensor) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[3] != 3:
        raise UserError(f"images must be uint8 (N, H, W, 3), not {images.dtype} {shape}")
    if shape[1] % STRIDE or shape[2] % STRIDE:
        raise UserError(f"images of {shape[1]}x{shape[2]} px: resize them to multiples of {STRIDE}")
