"""The images that belong to a trained model, for calibration and evaluation of its exports."""

from pathlib import Path

import numpy as np

from stlm_jax.data import dataset
from stlm_jax.data.folders import list_images
from stlm_jax.data.records import File, Record
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.runtime.errors import UserError

CALIBRATION_IMAGES = 32


def calibration_images(trained: TrainedModel, folder: Path | None) -> np.ndarray:
    """Images to calibrate with: of `folder`, or of the run's training split.

    At most `CALIBRATION_IMAGES`, evenly spread, uint8 (N, S, S, 3), as the model sees them.
    """
    if folder is not None:
        paths: list[File] = [*list_images(folder)]
        if not paths:
            raise UserError(f"--calibration={folder}: holds no image")
    else:
        paths = [record.image for record in run_records(trained, "train")]
        if not paths:
            raise UserError(
                "int8 needs good images to calibrate with, and the checkpoint's training images "
                "are not here: give a folder of some, --calibration=DIR"
            )
    count = min(len(paths), CALIBRATION_IMAGES)
    chosen = np.linspace(0, len(paths) - 1, count).round().astype(int)
    views = dataset.image_reader(trained.config).views([paths[index] for index in chosen])
    images = [view.pixels for _, view in views]
    if not images:
        raise UserError(f"none of {count} images to calibrate int8 with can be read")
    return np.stack(images)


def run_records(trained: TrainedModel, split: str) -> list[Record]:
    """The images of the run that `trained` is of; none where they are not on this machine."""
    if not trained.category:
        return []
    try:
        return dataset.split_of(trained.config, trained.category, split)
    except UserError:
        return []
