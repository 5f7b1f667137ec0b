"""Weights to start from: the teacher's, and what the student takes over."""

import pathlib
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from stlm_jax.errors import UserError
from stlm_jax.initialization import random_variables, variable_shapes
from stlm_jax.models.build import build_sam
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.weights_file import Weights, is_ours, nest, read_weights

_ASSETS = pathlib.Path(__file__).parent / "assets"
DEMO_TEACHER = _ASSETS / "demo_teacher.npz"
DEMO_STUDENT = _ASSETS / "demo_student.safetensors"
_SHIPPED = {"demo": DEMO_TEACHER, "demo_student": DEMO_STUDENT}

Variables = dict[str, Any]


def read_npz(path: str | pathlib.Path) -> Variables:
    """Variables of an `.npz` whose keys are 'collection/module/…/leaf', as float32.

    Raises:
      UserError: the file is absent or damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            flat = {name: file[name].astype(np.float32) for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path}: not a readable .npz weights file ({error})") from error
    return nest(path, flat)


def check_tree(path: str | pathlib.Path, variables: Variables, target: Variables) -> None:
    """Raises UserError unless `variables` has exactly the leaves and shapes of `target`."""
    actual, expected = (
        {name: tuple(x.shape) for name, x in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (variables, target)
    )
    missing = sorted(expected.keys() - actual.keys())
    unexpected = sorted(actual.keys() - expected.keys())
    misshapen = sorted(k for k in actual.keys() & expected.keys() if actual[k] != expected[k])
    found = [
        f"{kind}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if found:
        raise UserError(f"{path}: the weights are of another model; " + "; ".join(found))


def read_file(path: str | pathlib.Path, segmentation: str | pathlib.Path | None = None) -> Weights:
    """Weights from a file of any kind.

    Args:
      path: a weights file, a published torch file, an `.npz` of a SAM, or what ships with the
        package: 'demo', the teacher, or 'demo_student'.
      segmentation: the FA module's torch file, where `path` is the two-stream half of an STLM.

    Raises:
      UserError: a file cannot be used, or `segmentation` is given for a whole model.
    """
    path = _SHIPPED.get(str(path), path)
    ours, is_npz = is_ours(path), pathlib.Path(path).suffix == ".npz"
    if segmentation is not None and (ours or is_npz):
        raise UserError(f"{path}: is a whole model, it takes no segmentation file")
    if ours:
        return read_weights(path)
    if is_npz:
        return Weights(read_npz(path), {}, {"kind": "sam"})
    from conversion import from_torch  # needs the extra `stlm_jax[convert]`

    return from_torch.read_checkpoint(path, segmentation)


def _sam_name(path: str | pathlib.Path, weights: Weights) -> str:
    """Which of `SAM_VARIANTS` the weights are of."""
    from conversion import layouts

    if weights.metadata["kind"] != "sam":
        raise UserError(f"{path}: holds an STLM, not a SAM")
    try:
        return layouts.sam_variant(layouts.used_shapes(weights.variables))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def load_sam(path: str | pathlib.Path) -> tuple[Sam, Variables]:
    """A SAM of whatever variant the file is, and its variables as NumPy arrays.

    Args:
      path: a weights file, a published torch file, an `.npz`, or 'demo'.

    Raises:
      UserError: the file cannot be used, or is of no SAM.
    """
    weights = read_file(path)
    sam = build_sam(_sam_name(path, weights))
    check_tree(path, weights.variables, variable_shapes(sam))
    return sam, weights.variables


def load_teacher(config: ml_collections.ConfigDict) -> tuple[Sam | None, Variables | None]:
    """The frozen teacher of `config.teacher` and its variables.

    `checkpoint` is a file as `load_sam` takes, or 'demo' for the one that ships with the package,
    'random' for an untrained teacher (seeded), 'none' to train without guidance: (None, None).

    Raises:
      UserError: no checkpoint is given, or the file cannot be used.
    """
    name, checkpoint = config.teacher.name, config.teacher.checkpoint
    if checkpoint == "none":
        return None, None
    sam = build_sam(name, jnp.dtype(config.dtype))
    if checkpoint == "random":
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        return sam, jax.tree.map(jnp.asarray, random_variables(sam, key))
    if not checkpoint:
        raise UserError(
            f"config.teacher.checkpoint is empty: give the weights file of SAM {name}"
            " (--config.teacher.checkpoint=FILE), or 'random' for an untrained teacher"
        )
    weights = read_file(checkpoint)
    actual = _sam_name(checkpoint, weights)
    if actual != name:
        raise UserError(
            f"{checkpoint}: holds {actual}, but config.teacher.name is {name}"
            f" (--config.teacher.name={actual}, or give another checkpoint)"
        )
    check_tree(checkpoint, weights.variables, variable_shapes(sam))
    return sam, jax.tree.map(jnp.asarray, weights.variables)


def initial_student(config: ml_collections.ConfigDict, model: Stlm, key: jax.Array) -> Variables:
    """The student's variables before training.

    Random, then by `config.student.checkpoint`: of an STLM everything is taken over. Of a SAM with
    TinyViT encoder (or 'demo') it is the prompt constants and the decoder, and with `student.init`
    = 'mobile_sam' the encoder too, into both streams.

    Raises:
      UserError: the checkpoint does not fit the student.
    """
    path = config.student.checkpoint
    if not path and config.student.init == "mobile_sam":
        raise UserError("config.student.init=mobile_sam needs config.student.checkpoint")
    weights = _student_weights(config, model)
    if weights and weights.metadata["kind"] == "stlm":
        return jax.tree.map(jnp.asarray, weights.variables)
    variables = random_variables(model, key)
    variables["params"]["segmentation"]["head_4"]["kernel"] *= config.student.map_init_scale
    if weights:
        _take_over_sam(path, weights.variables, variables, model, config.student.init)
    return jax.tree.map(jnp.asarray, variables)


def finished_student(config: ml_collections.ConfigDict, model: Stlm) -> Variables | None:
    """The STLM of `config.student.checkpoint`; None where it is empty or holds a SAM.

    Raises:
      UserError: the file cannot be used, or is of an STLM of other widths.
    """
    weights = _student_weights(config, model)
    return weights.variables if weights and weights.metadata["kind"] == "stlm" else None


def _student_weights(config: ml_collections.ConfigDict, model: Stlm) -> Weights | None:
    path = config.student.checkpoint
    weights = read_file(path) if path else None
    if weights and weights.metadata["kind"] == "stlm":
        check_tree(path, weights.variables, variable_shapes(model))
    return weights


def _take_over_sam(
    path: str, source: Variables, variables: Variables, model: Stlm, init: str
) -> None:
    """Puts a SAM's decoder, and by `init` its encoder, into the student's `variables`."""
    sam = Sam(model.encoderT.clone(), model.model.prompt_encoder, model.model.mask_decoder)
    check_tree(path, source, variable_shapes(sam))
    decoder = {part: source["params"][part] for part in ("prompt_encoder", "mask_decoder")}
    variables["params"]["model"] = decoder
    if init == "mobile_sam":
        for collection in ("params", "batch_stats"):
            for stream in ("encoderT", "encoderS"):
                variables[collection][stream] = source[collection]["image_encoder"]
