"""Above which score an image is anomalous, estimated without the images that models are tested on.

The threshold is a quantile of the scores of good images that training has not seen: those of
`config.calibration.held_out`, or the data set's own validation split. Where there are none it is
of training images, whose scores are too low. Where a user has put defective images into the
validation split, it is the threshold of the largest F1 there.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import ml_collections
import numpy as np

from stlm_jax.data import dataset, depth
from stlm_jax.data.held_out import HELD_OUT
from stlm_jax.data.reader import View
from stlm_jax.data.records import Record
from stlm_jax.evaluation.thresholds import UpperQuantile, best_f1_threshold, conformal_rank
from stlm_jax.inference.calibration import load_if_current, store
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.inference.predictor import Predictor
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note, track
from stlm_jax.weights.description import F1MAX, TRAINING, VALIDATION, Calibration
from stlm_jax.workdir import DIVERGED

Predict = Callable[[Iterable[View]], Iterator[ImageMaps]]  # a category's model as `Predictor` is
_LEAST_NORMALISER = 1e-6  # where good images hardly differ in score


def calibrate_untested(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Thresholds of the categories that evaluation leaves out, for prediction and exports."""
    untested = [
        name
        for name in config.data.categories
        if not dataset.split_of(config, name, "test") and not (workdir / name / DIVERGED).is_file()
    ]
    predictor = Predictor(config) if untested else None
    for category in untested:
        assert predictor
        folder = workdir / category
        step = predictor.load(folder)
        load_or_calibrate(folder, depth.resolved(config, folder), predictor, category, step)


def load_or_calibrate(
    folder: Path,
    config: ml_collections.ConfigDict,
    predict: Predict,
    category: str,
    step: int | None = None,
) -> Calibration | None:
    """The calibration in `folder`; where none is there that fits, a new one by `predict`, stored.

    It is None, after a note, where the data set has only images to test on. Where there is no
    `folder`, `WORKDIR/CATEGORY`, as of a model that was not trained here, nothing is written. A
    training may go on meanwhile: `step` is that of the checkpoint that `predict` has read.
    """
    stored = load_if_current(folder, config, step)
    if stored:
        return stored
    if not _images(config, category)[1]:
        note(f"{category}: no threshold, there is no good image but those to test on")
        return None
    calibration = calibrate(config, predict, category)
    if folder.is_dir() and jax.process_index() == 0:
        store(folder, calibration, config, step)
    return calibration


def calibrate(config: ml_collections.ConfigDict, predict: Predict, category: str) -> Calibration:
    """Estimates a calibration of the model `predict`; its `source` says from which images."""
    source, good, defective = _images(config, category)
    if source == TRAINING:
        note(f"{category}: no image is held out; the threshold is from training images: optimistic")
    keys = config.calibration
    pixels = UpperQuantile(keys.pixel_quantile, len(good) * config.image_size**2)
    scores = []
    for result in _predict(config, predict, category, good):
        scores.append(result.score)
        pixels.add(result.map)
    good_scores = np.array(scores)
    count = len(good_scores)
    if defective:
        results = _predict(config, predict, category, defective)
        defective_scores = np.array([result.score for result in results])
        source, count = F1MAX, count + len(defective_scores)
        threshold = best_f1_threshold(good_scores, defective_scores)
    else:
        threshold = _threshold_of_quantile(category, good_scores, keys.quantile)
    spread = threshold - float(np.median(good_scores))
    normaliser = max(spread, _LEAST_NORMALISER)
    return Calibration(threshold, normaliser, pixels.value(), source, count)


def _images(
    config: ml_collections.ConfigDict, category: str
) -> tuple[str, list[Record], list[Record]]:
    """The source of good images, they themselves, and defective ones for validation."""
    records = dataset.scan(config, category).records
    splits = {VALIDATION: VALIDATION, HELD_OUT: HELD_OUT, TRAINING: "train"}
    good = {
        source: [record for record in records if record.split == split and not record.label]
        for source, split in splits.items()
    }
    source = next((source for source in good if good[source]), TRAINING)
    defective = [record for record in records if record.split == VALIDATION and record.label]
    return source, good[source], defective


def _predict(
    config: ml_collections.ConfigDict, predict: Predict, category: str, records: list[Record]
) -> Iterator[ImageMaps]:
    """What the model says of those images that can be read; an error where none can."""
    views = dataset.image_reader(config).views([record.image for record in records])
    results = predict(view for _, view in views)
    count = 0
    for result in track(results, f"calibrate {category}", len(records)):
        if not np.isfinite(result.map).all():
            raise UserError(f"{category}: the model's anomaly maps are not finite; train it again")
        count += 1
        yield result
    if not count:
        raise UserError(f"{category}: none of {len(records)} images to calibrate on can be read")


def _threshold_of_quantile(category: str, scores: np.ndarray, quantile: float) -> float:
    count = len(scores)
    rank = conformal_rank(count, quantile)
    if rank > count:
        note(
            f"{category}: {count} good images are too few for config.calibration.quantile="
            f"{quantile:g}; the threshold is their largest score, which 1 good image in "
            f"{count + 1} or so exceeds"
        )
    return float(np.sort(scores)[min(rank, count) - 1])
