"""Published state dicts to Flax variables, strictly."""

import collections
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util

from conversion.names import UNUSED, from_torch_layout, torch_name
from stlm_jax.errors import UserError
from stlm_jax.initialization import variable_shapes

Tensors = Mapping[str, np.ndarray]


def convert(tensors: Tensors, target: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fills a tree of variables from a published state dict.

    Args:
      tensors: name to array.
      target: {'params': …, 'batch_stats': …} with leaves that have a shape.
      prefix: what the tensor names begin with and the Flax paths do not.

    Returns:
      A tree like `target`, float32 NumPy leaves.

    Raises:
      UserError: tensors are missing, unexpected or misshapen; all of them are listed.
    """
    flat: dict[tuple[str, ...], np.ndarray] = {}
    used: set[str] = set()
    problems = collections.defaultdict(list)
    for path, leaf in traverse_util.flatten_dict(target).items():
        name = prefix + torch_name(path[1:])
        used.add(name)
        if name not in tensors:
            problems["missing"].append(name)
            continue
        value = from_torch_layout(path[-1], np.asarray(tensors[name], np.float32))
        if value.shape != tuple(leaf.shape):
            problems["misshapen"].append(f"{name} {value.shape}, not {tuple(leaf.shape)}")
            continue
        flat[path] = value
    problems["unexpected"] = [
        name for name in tensors if name not in used and not UNUSED.search(name)
    ]
    found = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise UserError("the weights are of another model; " + "; ".join(found))
    return traverse_util.unflatten_dict(flat)


def sam_variables(tensors: Tensors, model: nn.Module) -> dict[str, Any]:
    """Variables of `stlm_jax.models.sam.Sam` from a SAM or MobileSAM state dict."""
    return convert(tensors, variable_shapes(model))


def stlm_variables(two_stream: Tensors, segmentation: Tensors, model: nn.Module) -> dict[str, Any]:
    """Variables of `stlm_jax.models.stlm.Stlm` from the two published state dicts."""
    prefixed = {f"segmentation.{name}": tensor for name, tensor in segmentation.items()}
    return convert({**two_stream, **prefixed}, variable_shapes(model))


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """A `.pt`/`.pth` state dict as float32 arrays. Nothing in the file is executed.

    Raises:
      UserError: the file is absent, damaged, or holds anything but tensors.
    """
    import torch  # the extra `stlm_jax[convert]`

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable torch state dict ({reason})") from error
    return {
        name: tensor.float().numpy()
        for name, tensor in loaded.items()
        if isinstance(tensor, torch.Tensor)
    }
