"""Flax weights as published checkpoints: `python -m conversion.to_torch CKPT OUT.pt`.

Besides the published tensors a file holds, as metadata that the published code does not see, what
is known of an STLM (thresholds, how it was shown images) and a digest of all of it.
The published layouts also hold tensors that STLM never computes with. They come from the weights
file, if a published checkpoint brought them there; else they are zeros of the published shapes.
"""

import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from flax import traverse_util

from conversion.exports.arguments import check_output, checkpoint_parser, run_command
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.models.components import unpublished
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import open_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note, track
from stlm_jax.weights import layouts
from stlm_jax.weights.description import MAKER, Description, export_metadata
from stlm_jax.weights.digest import CONTENT, content_digest, tell_without_digest, tensor_digest
from stlm_jax.weights.file import is_ours, nest, open_weights, write_safetensors
from stlm_jax.weights.names import to_torch_layout
from stlm_jax.weights.published import open_checkpoint
from stlm_jax.weights.sidecar import SEGMENTATION, state_dict_metadata
from stlm_jax.weights.torch_file import METADATA
from stlm_jax.weights.unused import unused_tensors

SUFFIXES = (".pt", ".pth", ".safetensors")


class Tensor(NamedTuple):
    """One tensor to write: shape and type in torch, and a function that gives it."""

    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], np.ndarray]


def torch_tensors(
    variables: Mapping[str, Any], unused: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Every tensor of the published checkpoint of a SAM or, in the layout `stlm`, an STLM.

    Args:
        variables: {'params': …, 'batch_stats': …}, nested, of arrays or `LazyTensor`s.
        unused: known-unused tensors by published name; those that are not there are zeros.

    Returns:
        Published name to tensor, float32 or int64.
    """
    unused = unused or {}
    leaves = traverse_util.flatten_dict(variables)
    used = layouts.used_shapes(variables)
    tensors = {}
    for path, name in layouts.table(variables).items():
        read = functools.partial(_in_torch_layout, leaves[path], path[-1])
        tensors[name] = Tensor(used[name], np.dtype(np.float32), read)
    for name, (shape, dtype) in unused_tensors(used).items():
        given = functools.partial(np.asarray, unused[name], dtype) if name in unused else None
        tensors[name] = Tensor(shape, dtype, given or functools.partial(np.zeros, shape, dtype))
    return tensors


def _in_torch_layout(tensor: Any, leaf: str) -> np.ndarray:
    return to_torch_layout(leaf, np.asarray(tensor, np.float32))


class Model(NamedTuple):
    """What there is to write of a model.

    Attributes:
        variables: as `torch_tensors` takes them.
        unused: likewise.
        description: of an STLM, if it is known.
        unproven: files that it is from, which carry no digest.
    """

    variables: Mapping[str, Any]
    unused: Mapping[str, Any]
    description: Description | None
    unproven: tuple[str | Path, ...] = ()


def open_model(path: Path) -> Model:
    """The model of a weights file, a published file or a trained run."""
    if is_ours(path):
        flat, unused, metadata = open_weights(path)
        unproven = () if CONTENT in metadata else (path,)
        return Model(nest(path, flat), unused, _description(path, metadata), unproven)
    if path.is_file():
        checkpoint = open_checkpoint(path)
        weights, known = checkpoint.read(), _description(path, checkpoint.metadata)
        return Model(weights.variables, weights.unused, known, checkpoint.unproven)
    trained = load_trained(path)
    _require_published(path, trained.config.student)
    return Model(trained.variables, {}, trained.description)


def _require_published(path: Path, student: ml_collections.ConfigDict) -> None:
    """Raises UserError of a model that published code could not run."""
    for key, value in unpublished(student).items():
        raise UserError(
            f"{path}: was trained with config.student.{key}={value}, which the published layout "
            "has no place for: use conversion.to_onnx or conversion.to_stablehlo"
        )


def _description(path: Path, metadata: Mapping[str, str]) -> Description | None:
    return Description.read(path, metadata) if "image_size" in metadata else None


def write_state_dict(
    path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> str:
    """Writes a torch or safetensors file, by the suffix of `path`, whole or not at all.

    Returns:
        The digest of its content, which is in its metadata.
    """
    metadata = state_dict_metadata(description)
    if path.suffix == ".safetensors":
        entries = [(name, *tensor) for name, tensor in tensors.items()]
        metadata = write_safetensors(path, entries, metadata)
    else:
        import torch

        state_dict: OrderedDict[str, Any] = OrderedDict()
        digests = {}
        for name, tensor in track(tensors.items(), path.name, unit="tensor"):
            array = np.array(tensor.read(), tensor.dtype, order="C")
            state_dict[name], digests[name] = torch.from_numpy(array), tensor_digest(array)
        metadata[CONTENT] = content_digest(digests, metadata)
        setattr(state_dict, METADATA, metadata)
        try:
            with open_atomically(path) as file:
                torch.save(state_dict, file)
        except RuntimeError as error:  # torch's, in the place of a full disk's
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    note(f"wrote {path}: {len(tensors)} tensors, {path.stat().st_size / 1e6:.1f} MB")
    return metadata[CONTENT]


def convert_file(checkpoint: Path, output: Path, segmentation: Path | None = None) -> None:
    """Writes the published checkpoint of a model, with what describes it.

    An STLM is one file of the layout `stlm`, or, with `segmentation`, the published pair: `output`
    of the two streams, `segmentation` of the FA module.
    """
    for path in filter(None, (output, segmentation)):
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: the name must end with {', '.join(SUFFIXES)}")
        check_output(path, checkpoint)
    if segmentation:
        check_output(segmentation, output)
    model = open_model(checkpoint)
    tensors = torch_tensors(model.variables, model.unused)
    known = model.description
    described = export_metadata(known, model.variables, "float32") if known else MAKER
    if segmentation is None:
        write_state_dict(output, tensors, described)
    else:
        two_stream, fa_module = layouts.split(tensors)
        if not fa_module:
            raise UserError(f"{checkpoint}: holds a SAM, which has no segmentation file")
        other = write_state_dict(segmentation, fa_module, MAKER)
        write_state_dict(output, two_stream, {**described, SEGMENTATION: other})
    tell_without_digest(*model.unproven)


def main(command_line: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = checkpoint_parser(
        "to_torch", "Write a model as a checkpoint of the published names, for PyTorch."
    )
    parser.add_argument(
        "output",
        type=path_of,
        metavar="OUT",
        help=".pt, .pth or .safetensors",
    )
    parser.add_argument(
        "--segmentation",
        type=path_of,
        metavar="OUT2",
        help="write the published pair: OUT of the two streams, OUT2 of the FA module",
    )
    return run_command(parser, lambda arguments: convert_file(**vars(arguments)), command_line)


if __name__ == "__main__":
    sys.exit(main())
