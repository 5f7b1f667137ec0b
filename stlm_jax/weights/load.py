"""Weights from a file of any kind."""

import copy
import math
import pathlib
import zipfile
from typing import Any

import numpy as np
from flax import traverse_util

from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import local_copy
from stlm_jax.weights import layouts
from stlm_jax.weights.archive import require_honest_sizes
from stlm_jax.weights.file import Weights, is_ours, nest, read_weights
from stlm_jax.weights.published import read_checkpoint
from stlm_jax.weights.shapes import require_finite, require_same_shapes

_ASSETS = pathlib.Path(__file__).resolve().parents[1] / "assets"
DEMO_TEACHER = _ASSETS / "demo_teacher.npz"
DEMO_STUDENT = _ASSETS / "demo_student.safetensors"
_HEADER_2 = np.lib.format.read_array_header_2_0
_SHIPPED = {"demo": DEMO_TEACHER, "demo_student": DEMO_STUDENT}

Variables = dict[str, Any]


def read_npz(path: str | pathlib.Path) -> Variables:
    """Variables of an `.npz` whose keys are 'collection/module/…/leaf', as float32.

    Its archive holds a CRC-32 of every tensor, which is checked as they are read.
    """
    try:
        local = local_copy(path)
        _require_honest(local)
        with np.load(local, allow_pickle=False) as file, np.errstate(over="ignore"):
            flat = {name: file[name].astype(np.float32) for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except Exception as error:  # archives, compression and arrays have each their own
        raise UserError(
            f"{path}: damaged, or not an .npz weights file ({first_line(error)})"
        ) from error
    for name, array in flat.items():
        require_finite(path, name, array)
    return nest(path, flat)


def _require_honest(path: pathlib.Path) -> None:
    """Raises ValueError of an archive whose arrays are larger than what it holds, or a bomb."""
    require_honest_sizes(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                old = version == (1, 0)
                header = np.lib.format.read_array_header_1_0 if old else _HEADER_2
                shape, _, dtype = header(member)
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename} says that it is larger than it is")


def check_tree(path: str | pathlib.Path, variables: Variables, target: Variables) -> None:
    """Raises UserError unless `variables` has exactly the leaves and shapes of `target`."""
    actual, expected = (
        {name: tuple(x.shape) for name, x in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (variables, target)
    )
    try:
        require_same_shapes(actual, expected, listed=5)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_file(path: str | pathlib.Path, segmentation: str | pathlib.Path | None = None) -> Weights:
    """Weights from a file of any kind.

    Args:
        path: a weights file, a published torch file, an `.npz` of a SAM, or what ships with the
            package: 'demo', the teacher, or 'demo_student'.
        segmentation: the FA module's torch file, where `path` is the two-stream half of an STLM.
    """
    path = _SHIPPED.get(str(path), path)
    ours, is_npz = is_ours(path), pathlib.Path(path).suffix == ".npz"
    if segmentation is not None and (ours or is_npz):
        raise UserError(f"{path}: is a whole model, it takes no segmentation file")
    if ours:
        return read_weights(path)
    if is_npz:
        return Weights(read_npz(path), {}, {"kind": "sam"})
    return read_checkpoint(path, segmentation)


def sam_name(path: str | pathlib.Path, weights: Weights) -> str:
    """Which of `SAM_VARIANTS` the weights are of."""
    if weights.metadata["kind"] != "sam":
        raise UserError(f"{path}: holds an STLM, not a SAM")
    try:
        return layouts.sam_variant(layouts.used_shapes(weights.variables))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def load_sam(path: str | pathlib.Path) -> tuple[Sam, Variables]:
    """A SAM of whatever variant the file is, as `read_file` takes it, and its NumPy variables."""
    weights = read_file(path)
    sam = build_sam(sam_name(path, weights))
    check_tree(path, weights.variables, variable_shapes(sam))
    return sam, weights.variables


def read_student(path: str | pathlib.Path, model: Stlm) -> Weights | None:
    """The STLM that fits `model`, or the SAM, of a file of any kind; None of an empty `path`.

    Where `model` has a decoder for each stream and the file one for both, it is that of each.
    """
    weights = read_file(path) if path else None
    if weights and weights.metadata["kind"] == "stlm":
        params = weights.variables["params"]
        if model.modelS is not None and "model" in params:
            params.setdefault("modelS", copy.deepcopy(params["model"]))
        check_tree(path, weights.variables, variable_shapes(model))
    return weights
