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

DEMO_TEACHER = pathlib.Path(__file__).parent / "assets" / "demo_teacher.npz"

Variables = dict[str, Any]


def read_npz(path: str | pathlib.Path) -> Variables:
    """Variables of an `.npz` whose keys are 'collection/module/…/leaf', as float32.

    Raises:
      UserError: the file is absent or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            flat = {name: file[name].astype(np.float32) for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path}: not a readable .npz weights file ({error})") from error
    return traverse_util.unflatten_dict(flat, sep="/")


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


def _read_sam(path: str, sam: Sam) -> Variables:
    """A SAM checkpoint, ours (`.npz` or 'demo') or the published torch file, for `sam`.

    The conversion of a torch file is strict itself; only an `.npz` is compared here.
    """
    if path == "demo":
        path = str(DEMO_TEACHER)
    if pathlib.Path(path).suffix == ".npz":
        variables = read_npz(path)
        check_tree(path, variables, variable_shapes(sam))
    else:
        from conversion import from_torch  # needs the extra `stlm_jax[convert]`

        try:
            variables = from_torch.sam_variables(from_torch.read_state_dict(path), sam)
        except UserError as error:
            raise UserError(str(error) if path in str(error) else f"{path}: {error}") from error
    return variables


def load_teacher(config: ml_collections.ConfigDict) -> tuple[Sam | None, Variables | None]:
    """The frozen teacher of `config.teacher` and its variables.

    `checkpoint` is a file, or 'demo' for the one that ships with the package, 'random' for an
    untrained teacher (seeded), 'none' to train without guidance: (None, None).

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
    return sam, jax.tree.map(jnp.asarray, _read_sam(checkpoint, sam))


def initial_student(config: ml_collections.ConfigDict, model: Stlm, key: jax.Array) -> Variables:
    """The student's variables before training.

    Random, then by `config.student.checkpoint`, a checkpoint of a SAM with TinyViT encoder (or
    'demo'): its prompt constants and decoder are taken over, and with `student.init` =
    'mobile_sam' its encoder too, into both streams.

    Raises:
      UserError: the checkpoint does not fit the student.
    """
    variables = random_variables(model, key)
    variables["params"]["segmentation"]["head_4"]["kernel"] *= config.student.map_init_scale
    path = config.student.checkpoint
    if not path:
        if config.student.init == "mobile_sam":
            raise UserError("config.student.init=mobile_sam needs config.student.checkpoint")
        return jax.tree.map(jnp.asarray, variables)
    sam = Sam(model.encoderT.clone(), model.model.prompt_encoder, model.model.mask_decoder)
    source = _read_sam(path, sam)
    taken = {
        ("params", "model"): {
            part: source["params"][part] for part in ("prompt_encoder", "mask_decoder")
        }
    }
    if config.student.init == "mobile_sam":
        for collection in ("params", "batch_stats"):
            for stream in ("encoderT", "encoderS"):
                taken[collection, stream] = source[collection]["image_encoder"]
    for (collection, module), value in taken.items():
        variables[collection] = {**variables[collection], module: value}
    return jax.tree.map(jnp.asarray, variables)
