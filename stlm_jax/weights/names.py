"""The table between Flax paths and the published tensor names. It is near identity."""

import re

import numpy as np

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}

# Tensors of the published layouts that STLM never computes with; `unused.py` has their shapes.
UNUSED = re.compile(
    r"num_batches_tracked$"
    r"|(^|\.)(head|norm_head)\.(weight|bias)$"  # TinyViT's classifier
    r"|(^|\.)prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\."
    r"|(^|\.)mask_decoder\.(output_upscaling|output_hypernetworks_mlps|iou_prediction_head)\."
    r"|^model\.image_encoder\."  # in STLM's checkpoints: MobileSAM's own encoder
)

_EMBEDDING = re.compile(r"(mask_tokens|iou_token|no_mask_embed)\.weight$")

_KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}  # torch's OI to IO, OIHW to HWIO


def torch_name(path: tuple[str, ...]) -> str:
    """The published name of a Flax leaf, e.g. ('neck', '0', 'kernel') is 'neck.0.weight'."""
    modules, leaf = path[:-1], path[-1]
    name = ".".join((*modules, _LEAVES.get(leaf, leaf)))
    return re.sub(r"_(\d+)", r".\1", name)


def flax_path(name: str, axes: int) -> tuple[str, ...]:
    """The inverse of `torch_name`, its collection first, of a tensor of so many axes."""
    *modules, leaf = re.sub(r"(?<!neck)\.(\d+)", r"_\1", name).split(".")
    if leaf.startswith("running_"):
        return "batch_stats", *modules, leaf.removeprefix("running_")
    if leaf == "weight":
        wide = "embedding" if _EMBEDDING.search(name) else "kernel"
        leaf = wide if axes > 1 else "scale"
    return "params", *modules, leaf


def from_torch_layout(leaf: str, tensor: np.ndarray) -> np.ndarray:
    """A torch tensor in Flax's axis order: OIHW to HWIO, OI to IO; others unchanged."""
    return tensor.transpose(_axes(leaf, tensor.ndim))


def to_torch_layout(leaf: str, tensor: np.ndarray) -> np.ndarray:
    """The inverse of `from_torch_layout`."""
    return tensor.transpose(np.argsort(_axes(leaf, tensor.ndim)))


def torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a Flax leaf has in torch."""
    return tuple(shape[axis] for axis in np.argsort(_axes(leaf, len(shape))))


def _axes(leaf: str, count: int) -> tuple[int, ...]:
    unchanged = tuple(range(count))
    return _KERNEL_AXES.get(count, unchanged) if leaf == "kernel" else unchanged
