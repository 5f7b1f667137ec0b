"""A trained model, from wherever it is kept: a run's folder, a weights file, a published file."""

import dataclasses
from pathlib import Path

import ml_collections

from stlm_jax.config.rules import FILE, TRAIN
from stlm_jax.data import depth
from stlm_jax.inference import calibration, traced
from stlm_jax.models.build import build_stlm
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.weights import layouts
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.description import Calibration, Description
from stlm_jax.weights.load import Variables, check_tree, read_file
from stlm_jax.workdir import CHECKPOINTS, CONFIG, stored_config, trained_categories


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A student ready for inference.

    Attributes:
        model: the network.
        variables: its `params` and `batch_stats`.
        config: the configuration that it was trained with, or the published one with its widths.
        category: what it was trained on; empty where that is not known.
        calibration: thresholds; None where they were never estimated.
    """

    model: Stlm
    variables: Variables
    config: ml_collections.ConfigDict
    category: str = ""
    calibration: Calibration | None = None

    @property
    def description(self) -> Description:
        """What an export says of the model."""
        config = self.config
        return Description(
            self.category,
            config.image_size,
            config.data.geometry,
            config.evaluate.score_top_k,
            self.calibration,
            FILE if config.data.depth == TRAIN else config.data.depth,  # not trained in a run
        )


def load_trained(
    path: str | Path, segmentation: str | Path | None = None, image_size: int | None = None
) -> TrainedModel:
    """Loads a trained student.

    Args:
        path: a category's folder of a run (`WORKDIR/CATEGORY`, or `WORKDIR` if the run has only
            one), a weights file of this package, or a published torch file (`.pt`, `.pth`,
            `.safetensors`) of the two-stream model.
        segmentation: the published torch file of the FA module, where it is a file of its own.
        image_size: side in pixels; default: the one of training, and a UserError where that is
            not known. At another one the thresholds do not hold, and there are none.
    """
    path = path_of(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; give a run's category folder or a file")
    trained = _from_run(path) if path.is_dir() else _from_file(path, segmentation, image_size)
    return trained if image_size is None else _resized(path, trained, image_size)


def check_image_size(size: int) -> None:
    """Raises UserError unless `size`, in pixels, is one that the networks take."""
    if size <= 0 or size % 16:
        raise UserError(f"image size {size}: must be a positive multiple of 16")


def restore_student(folder: Path, shapes: Variables) -> tuple[int, Variables]:
    """Step and variables, of these `shapes`, of the newest checkpoint in a category's `folder`."""
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        restored = checkpoints.restore(shapes)
    if restored is None:
        raise UserError(f"{folder}: there is no checkpoint; train first (--mode=train)")
    return restored.step, restored.student


def _from_run(folder: Path) -> TrainedModel:
    if (folder / CONFIG).is_file():
        trained = trained_categories(folder)
        if len(trained) != 1:
            names = ", ".join(trained) or "none"
            raise UserError(f"{folder}: give one category's folder inside it (trained: {names})")
        folder = folder / trained[0]
    if not (folder / CHECKPOINTS).is_dir():
        raise UserError(f"{folder}: not a run's category folder, it holds no {CHECKPOINTS}/")
    config = depth.resolved(stored_config(folder.parent), folder)
    model = build_stlm(config)
    step, variables = restore_student(folder, traced.shapes(config, model))
    known = calibration.load(folder, step=step)
    return TrainedModel(model, variables, config, folder.name, known)


def _from_file(path: Path, segmentation: str | Path | None, image_size: int | None) -> TrainedModel:
    weights = read_file(path, segmentation)
    if weights.metadata["kind"] != "stlm":
        raise UserError(f"{path}: holds a SAM, not a trained STLM")
    try:
        config = layouts.stlm_config(layouts.used_shapes(weights.variables))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    model = build_stlm(config)
    if image_size is None and "image_size" not in weights.metadata:
        raise UserError(
            f"{path}: does not say at which image size it was trained: give it, --image_size=1024 "
            "or image_size=1024 in Python (1024 is the published one)"
        )
    known = Description.read(path, weights.metadata)
    config.image_size, config.data.geometry = known.image_size, known.geometry
    config.evaluate.score_top_k, config.data.depth = known.score_top_k, known.depth
    check_tree(path, weights.variables, traced.shapes(config, model))
    if known.calibration is None:
        note(f"{path}: its thresholds are not known; its scores are not judged")
    return TrainedModel(model, weights.variables, config, known.category, known.calibration)


def _resized(path: Path, trained: TrainedModel, image_size: int) -> TrainedModel:
    check_image_size(image_size)
    before, trained.config.image_size = trained.config.image_size, image_size
    if image_size == before or trained.calibration is None:
        return trained
    note(f"{path}: its thresholds are of {before} px and do not hold at {image_size}, left out")
    return dataclasses.replace(trained, calibration=None)
