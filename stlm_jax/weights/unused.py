"""Names and shapes of what published checkpoints hold and STLM never computes with.

They follow from the tensors that it does compute with, so any width of model has its own list.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]

IMAGENET_CLASSES = 1000  # TinyViT's classifier
MASK_CHANNELS = 16  # of the prompt encoder's convolutions over a mask
POINT_EMBEDDINGS = 4  # background, foreground, two corners of a box
IOU_HIDDEN = 256


class Spec(NamedTuple):
    """Shape and type of a published tensor."""

    shape: Shape
    dtype: Any = np.dtype(np.float32)


def unused_tensors(used: Mapping[str, Shape]) -> dict[str, Spec]:
    """The known-unused tensors that belong to the used ones.

    Args:
        used: published name to shape, of a SAM, an STLM or one of its parts. An STLM's segmentation
            is prefixed 'segmentation.'.

    Returns:
        Published name to shape and dtype: float32, or int64 of `num_batches_tracked`.
    """
    found: dict[str, Spec] = {}
    for name, shape in used.items():
        module, leaf = name.rsplit(".", 1)
        if leaf == "running_var":
            found[f"{module}.num_batches_tracked"] = Spec((), np.dtype(np.int64))
        elif name.endswith("prompt_encoder.no_mask_embed.weight"):
            found |= _prompt_encoder(name.removesuffix("no_mask_embed.weight"), shape[1])
        elif name.endswith("mask_decoder.mask_tokens.weight"):
            found |= _mask_decoder(name.removesuffix("mask_tokens.weight"), *shape)
        elif name.endswith("patch_embed.seq.0.c.weight"):
            encoder = name.removesuffix("patch_embed.seq.0.c.weight")
            if f"{encoder}neck.0.weight" in used:
                found |= _classifier(encoder, used[f"{encoder}neck.0.weight"][1])
    # STLM's checkpoints hold a whole MobileSAM, of which only the decoder is computed.
    everything = {name: Spec(shape) for name, shape in used.items()} | found
    for name, spec in everything.items():
        if name.startswith("encoderT."):
            found[name.replace("encoderT.", "model.image_encoder.", 1)] = spec
    return found


def _layer(name: str, weight: Shape, outputs: int) -> dict[str, Spec]:
    return {f"{name}.weight": Spec(weight), f"{name}.bias": Spec((outputs,))}


def _mlp(name: str, widths: Shape) -> dict[str, Spec]:
    found: dict[str, Spec] = {}
    for index, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        found |= _layer(f"{name}.layers.{index}", (outputs, inputs), outputs)
    return found


def _classifier(encoder: str, channels: int) -> dict[str, Spec]:
    return {
        **_layer(f"{encoder}norm_head", (channels,), channels),
        **_layer(f"{encoder}head", (IMAGENET_CLASSES, channels), IMAGENET_CLASSES),
    }


def _prompt_encoder(module: str, channels: int) -> dict[str, Spec]:
    points = [f"point_embeddings.{index}" for index in range(POINT_EMBEDDINGS)]
    found = {f"{module}{name}.weight": Spec((1, channels)) for name in points}
    found[f"{module}not_a_point_embed.weight"] = Spec((1, channels))
    narrow, wide = MASK_CHANNELS // 4, MASK_CHANNELS
    return {
        **found,
        **_layer(f"{module}mask_downscaling.0", (narrow, 1, 2, 2), narrow),
        **_layer(f"{module}mask_downscaling.1", (narrow,), narrow),
        **_layer(f"{module}mask_downscaling.3", (wide, narrow, 2, 2), wide),
        **_layer(f"{module}mask_downscaling.4", (wide,), wide),
        **_layer(f"{module}mask_downscaling.6", (channels, wide, 1, 1), channels),
    }


def _mask_decoder(module: str, masks: int, channels: int) -> dict[str, Spec]:
    quarter, eighth = channels // 4, channels // 8
    found = {
        **_layer(f"{module}output_upscaling.0", (channels, quarter, 2, 2), quarter),
        **_layer(f"{module}output_upscaling.1", (quarter,), quarter),
        **_layer(f"{module}output_upscaling.3", (quarter, eighth, 2, 2), eighth),
        **_mlp(f"{module}iou_prediction_head", (channels, IOU_HIDDEN, IOU_HIDDEN, masks)),
    }
    for mask in range(masks):
        widths = (channels, channels, channels, eighth)
        found |= _mlp(f"{module}output_hypernetworks_mlps.{mask}", widths)
    return found
