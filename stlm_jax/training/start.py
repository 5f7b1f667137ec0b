"""What a training starts from: the frozen teacher, and the student's first weights."""

import copy

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import random_variables, variable_shapes
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.sharding import DATA, put_whole, weight_shardings
from stlm_jax.weights.load import Variables, check_tree, read_file, read_student, sam_name

SAM_IS_BETTER = (
    "the teacher is the small one that ships with stlm_jax; SAM's weights are better and want a "
    "GPU: fetch https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth (375 MB) and "
    "train with stlm train --preset=published --teacher=sam_vit_b_01ec64.pth"
)


def load_teacher(
    config: ml_collections.ConfigDict, mesh: Mesh | None = None
) -> tuple[Sam | None, Variables | None]:
    """The frozen teacher of `config.teacher`, and its variables on the devices.

    Args:
        config: of the run.
        mesh: on which they lie as `teacher.sharding` says; None: they lie on the default device.
    """
    sam, variables = read_teacher(config)
    if variables is None or mesh is None:
        return sam, jax.tree.map(jnp.asarray, variables)
    # From the host to where each part belongs: the whole need not fit on any device.
    places = weight_shardings(variables, mesh, DATA, config.teacher.sharding)
    return sam, put_whole(variables, places)


def read_teacher(config: ml_collections.ConfigDict) -> tuple[Sam | None, Variables | None]:
    """The frozen teacher of `config.teacher` and its variables.

    `checkpoint` is a file as `load_sam` takes, or 'demo' for the one that ships with the package,
    'random' for an untrained teacher (seeded), 'none' to train without guidance: (None, None).
    """
    name, checkpoint = config.teacher.name, config.teacher.checkpoint
    if checkpoint == "none":
        return None, None
    sam = build_sam(name, jnp.dtype(config.dtype))
    if checkpoint == "random":
        # A stream of its own: students' keys are folded with the checksums of their categories.
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        return sam, random_variables(sam, key)
    if not checkpoint:
        raise UserError(
            f"config.teacher.checkpoint is empty: give the weights file of SAM {name}"
            " (--config.teacher.checkpoint=FILE), or 'random' for an untrained teacher"
        )
    if checkpoint == "demo" and not config.data.demo:
        note(SAM_IS_BETTER)
    weights = read_file(checkpoint)
    actual = sam_name(checkpoint, weights)
    if actual != name:
        raise UserError(
            f"{checkpoint}: holds {actual}, but config.teacher.name is {name}"
            f" (--config.teacher.name={actual}, or give another checkpoint)"
        )
    check_tree(checkpoint, weights.variables, variable_shapes(sam))
    return sam, weights.variables


def initial_student(config: ml_collections.ConfigDict, model: Stlm, key: jax.Array) -> Variables:
    """The student's variables before training.

    Random, then by `config.student.checkpoint`: of an STLM everything is taken over. Of a SAM with
    TinyViT encoder (or 'demo') it is the prompt constants and the decoder, and with `student.init`
    = 'mobile_sam' the encoder too, into both streams.
    """
    path = config.student.checkpoint
    if not path and config.student.init == "mobile_sam":
        raise UserError("config.student.init=mobile_sam needs config.student.checkpoint")
    weights = read_student(path, model)
    if weights and weights.metadata["kind"] == "stlm":
        return jax.tree.map(jnp.asarray, weights.variables)
    variables = random_variables(model, key)
    # As published the first map saturates its sigmoid, which a short training cannot undo.
    variables["params"]["segmentation"]["head_4"]["kernel"] *= config.student.map_init_scale
    if weights:
        _take_over_sam(path, weights.variables, variables, model, config.student.init)
    return jax.tree.map(jnp.asarray, variables)


def _take_over_sam(
    path: str, source: Variables, variables: Variables, model: Stlm, init: str
) -> None:
    """Puts a SAM's decoder, and by `init` its encoder, into the student's `variables`."""
    sam = Sam(model.encoderT.clone(), model.model.prompt_encoder, model.model.mask_decoder)
    check_tree(path, source, variable_shapes(sam))
    decoder = {part: source["params"][part] for part in ("prompt_encoder", "mask_decoder")}
    for name in ("model", "modelS"):
        if name in variables["params"]:
            variables["params"][name] = copy.deepcopy(decoder)
    if init == "mobile_sam":
        for collection in ("params", "batch_stats"):
            for stream in ("encoderT", "encoderS"):
                variables[collection][stream] = source[collection]["image_encoder"]
