"""Published checkpoints as Flax variables, strictly: every tensor used or known to be unused."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util
from numpy.typing import ArrayLike

from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights import layouts
from stlm_jax.weights.description import Description, text_values
from stlm_jax.weights.digest import CONTENT, tell_without_digest, weights_digest
from stlm_jax.weights.file import UNUSED_FOLDER, Entry, LazyTensor, Weights, nest
from stlm_jax.weights.names import from_torch_layout
from stlm_jax.weights.shapes import require_same_shapes
from stlm_jax.weights.sidecar import check_pair, read_description
from stlm_jax.weights.torch_file import open_state_dict
from stlm_jax.weights.unused import Spec, unused_tensors

Tensors = Mapping[str, Any]  # name to array, or to anything else that NumPy makes an array of
Target = Mapping[str, Any]  # {'params': …, 'batch_stats': …} with leaves that have a shape


def match(tensors: Tensors, target: Target) -> dict[str, Spec]:
    """Checks that tensors fill a tree of variables exactly; the known-unused ones among them."""
    used = layouts.used_shapes(target)
    known_unused = unused_tensors(used)
    optional = {name: spec.shape for name, spec in known_unused.items()}
    shapes = _shapes(tensors)
    require_same_shapes(shapes, used, optional)
    return {name: spec for name, spec in known_unused.items() if name in shapes}


def convert(tensors: Tensors, target: Target) -> dict[str, Any]:
    """A tree like `target`, filled from a published state dict; float32 NumPy leaves, copies."""
    match(tensors, target)
    return traverse_util.unflatten_dict(
        {
            path: np.array(_variable(tensors[name], path[-1]), order="C")
            for path, name in layouts.table(target).items()
        }
    )


def _variable(tensor: ArrayLike, leaf: str) -> np.ndarray:
    return from_torch_layout(leaf, np.asarray(tensor, np.float32))


@dataclasses.dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint, checked but not yet read.

    Attributes:
        layout: published name, 'stlm' for an STLM; or the name of an unpublished SAM variant.
        tensors: published name to tensor; the names of the layout `stlm` for an STLM.
        unused: the known-unused ones among them.
        target: shapes of the variables that the others fill.
        known: of an STLM, what the file says of it, or a description beside it, as metadata.
        unproven: files of it that no digest shows to be whole.
    """

    layout: str
    tensors: Tensors
    unused: dict[str, Spec]
    target: Target
    known: dict[str, str] = dataclasses.field(default_factory=dict)
    unproven: tuple[str | Path, ...] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """Of the weights file: `kind`, `layout` and what is known of the model."""
        published = (*layouts.SAM_LAYOUTS, layouts.STLM)
        return {
            "kind": "stlm" if self.layout == layouts.STLM else "sam",
            "layout": self.layout if self.layout in published else "",
            **self.known,
        }

    def entries(self, dtype: Any) -> Iterator[Entry]:
        """The tensors of the weights file, floating-point ones stored as `dtype`."""
        leaves = traverse_util.flatten_dict(self.target)
        for path, name in layouts.table(self.target).items():
            read = functools.partial(_variable, self.tensors[name], path[-1])
            yield "/".join(path), tuple(leaves[path].shape), dtype, read
        for name, spec in self.unused.items():
            stored = spec.dtype if spec.dtype.kind == "i" else dtype
            read = functools.partial(np.asarray, self.tensors[name], spec.dtype)
            yield UNUSED_FOLDER + name, spec.shape, stored, read

    def read(self) -> Weights:
        """All of it in memory, float32."""
        variables = convert(self.tensors, self.target)
        unused = {
            name: np.array(self.tensors[name], spec.dtype) for name, spec in self.unused.items()
        }
        return Weights(variables, unused, self.metadata)


def open_checkpoint(
    path: str | Path, segmentation: str | Path | None = None, layout: str | None = None
) -> PublishedCheckpoint:
    """Opens a published checkpoint and checks it against the model that it is of.

    Args:
        path: `.pt`, `.pth` or `.safetensors`.
        segmentation: the FA module's file, where `path` is the two-stream half of an STLM.
        layout: what `path` must be, of `SAM_LAYOUTS` or 'stlm'; detected when not given.
    """
    tensors, metadata, found = _open(path)
    opened: dict[str | Path, Mapping[str, str]] = {path: metadata}
    family = layouts.STLM if found in layouts.STLM_LAYOUTS else found
    if layout and layout != family:
        raise UserError(f"{path}: not {layout}, it looks like {found}; use --layout={family}")
    if segmentation is not None:
        if found != layouts.TWO_STREAM:
            raise UserError(f"{path}: looks like {found}, which takes no segmentation file")
        half, opened[segmentation], of_half = _open(segmentation)
        if of_half != layouts.SEGMENTATION:
            raise UserError(f"{segmentation}: looks like {of_half}, not {layouts.SEGMENTATION}")
        tensors, found = layouts.join(tensors, half), layouts.STLM
    if found in (layouts.TWO_STREAM, layouts.SEGMENTATION):
        raise UserError(
            f"{path}: {found}, one half of a published STLM; join both: python -m "
            "conversion.from_torch TWO_STREAM DST --segmentation=SEGMENTATION"
        )
    try:
        if found == layouts.STLM:
            model: nn.Module = build_stlm(layouts.stlm_config(_shapes(tensors)))
        else:
            model = build_sam(layouts.SAM_LAYOUTS.get(found, found))
        target = variable_shapes(model)
        checkpoint = PublishedCheckpoint(found, tensors, match(tensors, target), target)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return _described(checkpoint, opened)


def _described(
    checkpoint: PublishedCheckpoint, opened: Mapping[str | Path, Mapping[str, str]]
) -> PublishedCheckpoint:
    """`checkpoint` with what its files, given with their metadata, say of the model."""
    path, *second = opened

    def digest() -> str:
        tensors = {
            name: LazyTensor(shape, read)
            for name, shape, _, read in checkpoint.entries(np.float32)
            if not name.startswith(UNUSED_FOLDER)
        }
        return weights_digest(nest(path, tensors))

    described = known = {}
    if checkpoint.layout == layouts.STLM:
        described = read_description(path, opened[path], digest)
        for other in second:
            check_pair(path, described, other, opened[other])
    if "image_size" in described:
        known = text_values(Description.read(path, described).values())
    # A description without a digest of the file's content has one of the model's weights.
    unproven = () if described else tuple(x for x, said in opened.items() if CONTENT not in said)
    return dataclasses.replace(checkpoint, known=known, unproven=unproven)


def _open(path: str | Path) -> tuple[Tensors, Mapping[str, str], str]:
    tensors, metadata = open_state_dict(path)
    try:
        return tensors, metadata, layouts.detect_layout(_shapes(tensors))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}


def read_checkpoint(path: str | Path, segmentation: str | Path | None = None) -> Weights:
    """A published checkpoint, converted in memory."""
    checkpoint = open_checkpoint(path, segmentation)
    weights = checkpoint.read()
    tell_without_digest(*checkpoint.unproven)
    return weights
