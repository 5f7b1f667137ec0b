"""The published layouts: which file is which, and which model it fills.

`mobile_sam`, `sam_vit_b`, `sam_vit_l` and `sam_vit_h` are one file each. A published STLM is a
pair, `stlm_twostream` and `stlm_segmentation`; `stlm` is the pair in one file, the second's names
prefixed 'segmentation.'. SAM variants that were never published are known by their own names.
"""

import collections
import re
from collections.abc import Mapping
from typing import Any

import ml_collections
from flax import traverse_util

from stlm_jax.config import default
from stlm_jax.models.build import ENCODERS, SAM_VARIANTS, SamVariant
from stlm_jax.models.tiny_vit import TinyViT
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.names import torch_name, torch_shape

SAM_LAYOUTS = {  # the published name, the name in `build.SAM_VARIANTS`
    "mobile_sam": "mobile_sam",
    "sam_vit_b": "vit_b",
    "sam_vit_l": "vit_l",
    "sam_vit_h": "vit_h",
}
STLM, TWO_STREAM, SEGMENTATION = "stlm", "stlm_twostream", "stlm_segmentation"
STLM_LAYOUTS = (STLM, TWO_STREAM, SEGMENTATION)
SEGMENTATION_PREFIX = "segmentation."

# Layers of an encoder's last stage that give as many channels as the stage has.
_TINY_VIT_OUTPUTS = r"\.layers\.3\.blocks\.\d+\.(attn\.(norm|proj)|local_conv|mlp\.(norm|fc2))\."

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # published name to shape in torch's axis order
Path = tuple[str, ...]  # of a Flax leaf, its collection first


def table(variables: Mapping[str, Any]) -> dict[Path, str]:
    """Path and published name of every variable, one to one.

    Args:
        variables: {'params': …, 'batch_stats': …}, nested.
    """
    names = {path: torch_name(path[1:]) for path in traverse_util.flatten_dict(variables)}
    if len(set(names.values())) != len(names):
        raise ValueError("two variables have the same published name")
    return names


def used_shapes(variables: Mapping[str, Any]) -> dict[str, Shape]:
    """Published names and shapes of variables, of arrays or anything that has a shape."""
    leaves = traverse_util.flatten_dict(variables)
    names = table(variables)
    return {name: torch_shape(path[-1], leaves[path].shape) for path, name in names.items()}


def split(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of the layout `stlm` as those of `stlm_twostream` and `stlm_segmentation`."""
    segmentation = {
        name.removeprefix(SEGMENTATION_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(SEGMENTATION_PREFIX)
    }
    two_stream = {k: v for k, v in tensors.items() if not k.startswith(SEGMENTATION_PREFIX)}
    return two_stream, segmentation


def join(two_stream: Mapping[str, Any], segmentation: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `split`."""
    return {**two_stream, **{SEGMENTATION_PREFIX + k: v for k, v in segmentation.items()}}


def detect_layout(shapes: Shapes) -> str:
    """What a checkpoint is, by its tensors; some of them may be missing.

    Returns:
        One of `SAM_LAYOUTS` or `STLM_LAYOUTS`, or the name in `SAM_VARIANTS` of an unpublished SAM.
    """
    parts = {name.split(".", 1)[0] for name in shapes}
    if parts & {"encoderT", "encoderS"}:
        return STLM if "segmentation" in parts else TWO_STREAM
    if "res" in parts:
        return SEGMENTATION
    variant = sam_variant(shapes)
    return next((name for name, known in SAM_LAYOUTS.items() if known == variant), variant)


def sam_variant(shapes: Shapes) -> str:
    """The name in `SAM_VARIANTS` of the SAM that has these tensors."""
    vit = _width(shapes, r"image_encoder\.blocks\.\d+\.(norm\d|attn\.proj|mlp\.lin2)\.")
    tiny_vit = _width(shapes, "image_encoder" + _TINY_VIT_OUTPUTS)
    for name, variant in SAM_VARIANTS.items():
        width = tiny_vit if variant.encoder is TinyViT else vit
        if width == _encoder_width(variant) and _fits(variant, shapes):
            return name
    first = ", ".join(list(shapes)[:3]) or "none"
    raise UserError(
        f"of no known layout (its {len(shapes)} tensors: {first}, …); known are "
        f"{', '.join((*SAM_LAYOUTS, *STLM_LAYOUTS))}"
    )


def stlm_config(shapes: Shapes) -> ml_collections.ConfigDict:
    """The published configuration with the widths of the STLM (layout `stlm`) of these tensors."""
    config = default()
    width = _width(shapes, r"encoder[TS]" + _TINY_VIT_OUTPUTS)
    channels = _width(shapes, rf"{SEGMENTATION_PREFIX}")
    encoders = [
        name for name, known in ENCODERS.items() if TinyViT(**known).embed_dims[-1] == width
    ]
    names = (config.teacher.name, *SAM_VARIANTS)
    decoders = [name for name in names if _fits(SAM_VARIANTS[name], shapes)]
    if not encoders or not decoders or not channels:
        raise UserError(f"of an STLM that cannot be built, with encoders of width {width}")
    config.student.encoder, config.teacher.name = encoders[0], decoders[0]
    config.student.segmentation_channels = channels
    return config


def _encoder_width(variant: SamVariant) -> int:
    encoder = variant.encoder(**variant.encoder_arguments)
    return encoder.embed_dims[-1] if isinstance(encoder, TinyViT) else encoder.embed_dim


def _fits(variant: SamVariant, shapes: Shapes) -> bool:
    """Whether a decoder is as wide as the variant's."""
    transformer = r"(model\.)?mask_decoder\.transformer\."
    widths = (
        _width(shapes, transformer + r"layers\.\d\.norm\d\."),
        _width(shapes, transformer + r"layers\.\d\.mlp\.lin1\."),
    )
    return widths == (variant.channels, variant.decoder_mlp_dim)


def _width(shapes: Shapes, pattern: str) -> int:
    """The commonest first axis of tensors whose names begin with `pattern`; 0 without any."""
    lengths = collections.Counter(
        shape[0] for name, shape in shapes.items() if shape and re.match(pattern, name)
    )
    return lengths.most_common(1)[0][0] if lengths else 0
