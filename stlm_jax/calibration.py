"""Above which score an image is anomalous, estimated without the images that models are tested on.

The threshold is a quantile of the scores of good images that training has not seen: those of
`config.calibration.held_out`, or the data set's own validation split. Where there are none it is
of training images, whose scores are too low. Where a user has put defective images into the
validation split, it is the threshold of the largest F1 there.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import ml_collections
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from stlm_jax import dataset
from stlm_jax.config_checks import flatten
from stlm_jax.data.held_out import HELD_OUT
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError
from stlm_jax.files import write_atomically
from stlm_jax.progress import ProgressLine, note
from stlm_jax.rates import Rates as Rates
from stlm_jax.thresholds import UpperQuantile, best_f1_threshold, conformal_rank

if TYPE_CHECKING:  # they find trained models, whose calibration is read here
    from stlm_jax.predictor import Found, Predictor

NAME = "calibration.json"
VALIDATION, TRAINING, F1MAX = "validation", "training", "f1max"
SOURCES = (VALIDATION, HELD_OUT, TRAINING, F1MAX)

_SCORE = "evaluate.score_top_k"
_SETTINGS = ("calibration.quantile", "calibration.pixel_quantile", _SCORE)
_LEAST_NORMALISER = 1e-6  # where good images hardly differ in score


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What tells anomalous from good, in the units of a model's scores and maps.

    Attributes:
        threshold: an image is anomalous where its score is above.
        normaliser: positive; the unit in which scores are counted from the threshold.
        pixel_threshold: a pixel is anomalous where the map is above.
        source: what it was estimated from: `validation`, `held_out`, `training` (optimistic, for
            the model knows these images), or `f1max`: good images and defective validation images.
        images: how many they were.
    """

    threshold: float
    normaliser: float
    pixel_threshold: float
    source: str
    images: int

    def __post_init__(self):
        numbers = (self.threshold, self.normaliser, self.pixel_threshold)
        if not (all(map(math.isfinite, numbers)) and self.normaliser > 0):
            raise ValueError(f"not finite, or the normaliser is not positive: {numbers}")
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is none of {', '.join(SOURCES)}")

    def normalise(self, score: ArrayLike) -> np.ndarray:
        """Scores of any shape to float64 in 0..1: 0.5 at the threshold, more above it."""
        return expit((np.asarray(score, np.float64) - self.threshold) / self.normaliser)


def load_or_make(
    folder: Path, config: ml_collections.ConfigDict, predictor: "Predictor", category: str
) -> Calibration | None:
    """The calibration in a category's `folder`; where none is there that fits, a new one, stored.

    It is None, after a note, where the data set has only images to test on.

    Args:
        folder: `WORKDIR/CATEGORY`; where there is none, as of a model that was not trained here,
            nothing is written.
        config: of the run.
        predictor: with the category's weights loaded.
        category: its name.

    Raises:
        UserError: as `load` and `calibrate`.
    """
    stored = _read(folder)
    if stored and _agree(stored[1], config, _SETTINGS):
        return stored[0]
    if not _images(config, category)[1]:
        note(f"{category}: no threshold, there is no good image but those to test on")
        return None
    made = calibrate(config, predictor, category)
    if folder.is_dir() and jax.process_index() == 0:
        store(folder, made, config)
    return made


def load(folder: Path, config: ml_collections.ConfigDict | None = None) -> Calibration | None:
    """The calibration that is stored in a category's `folder`; None where there is none.

    With `config`, None too where it is of scores that are computed otherwise.

    Raises:
        UserError: the file is damaged.
    """
    stored = _read(folder)
    if stored is None or (config and not _agree(stored[1], config, (_SCORE,))):
        return None
    return stored[0]


def _read(folder: Path) -> tuple[Calibration, dict[str, Any]] | None:
    """What is stored, and the configuration that it was made with."""
    path = Path(folder) / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_with = dict(content.pop("made_with"))
        return Calibration(**content), made_with
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not a calibration ({error}); delete it, and evaluation makes another"
        ) from error


def _agree(
    made_with: dict[str, Any], config: ml_collections.ConfigDict, keys: tuple[str, ...]
) -> bool:
    values = flatten(config)
    return all(made_with.get(key, values[key]) == values[key] for key in keys)


def store(
    folder: Path, calibration: Calibration, config: ml_collections.ConfigDict | None = None
) -> None:
    """Writes `calibration.json` into a category's `folder`, whole or not at all.

    With `config`, the values of the keys that it depends on are noted in it.

    Raises:
        OSError: the disk or the permissions refuse.
    """
    values = flatten(config) if config else {}
    made_with = {key: values[key] for key in _SETTINGS if key in values}
    content = {**dataclasses.asdict(calibration), "made_with": made_with}
    write_atomically(Path(folder) / NAME, json.dumps(content, indent=2) + "\n")


def forget(folder: Path) -> None:
    """Removes the calibration in a category's `folder`, as its weights are about to change."""
    (Path(folder) / NAME).unlink(missing_ok=True)


def calibrate(
    config: ml_collections.ConfigDict, predictor: "Predictor", category: str
) -> Calibration:
    """Estimates a calibration; `Calibration.source` says from which images.

    Args:
        config: of the run; `config.calibration` has the quantiles.
        predictor: with the category's weights loaded.
        category: its name.

    Raises:
        UserError: the category has no good image that can be read and is not for testing, or the
            model's maps are not finite.
    """
    source, good, defective = _images(config, category)
    if source == TRAINING:
        note(f"{category}: no image is held out; the threshold is from training images: optimistic")
    keys = config.calibration
    pixels = UpperQuantile(keys.pixel_quantile, len(good) * config.image_size**2)
    scores = []
    for one in _find(config, predictor, category, good):
        scores.append(one.score)
        pixels.add(one.map)
    of_good = np.array(scores)
    count = len(of_good)
    if defective:
        found = _find(config, predictor, category, defective)
        of_defective = np.array([one.score for one in found])
        source, count = F1MAX, count + len(of_defective)
        threshold = best_f1_threshold(of_good, of_defective)
    else:
        threshold = _threshold_of_quantile(category, of_good, keys.quantile)
    spread = threshold - float(np.median(of_good))
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


def _find(
    config: ml_collections.ConfigDict, predictor: "Predictor", category: str, records: list[Record]
) -> Iterator["Found"]:
    """What the model says of images, of those that can be read.

    Raises:
        UserError: there is none, or a map is not finite.
    """
    views = dataset.reading(config).views([record.image for record in records])
    progress = ProgressLine(f"calibrate {category}", len(records), unit="image")
    done = 0
    for done, found in enumerate(predictor(view for _, view in views), 1):
        if not np.isfinite(found.map).all():
            raise UserError(f"{category}: the model's anomaly maps are not finite; train it again")
        yield found
        progress.update(done)
    progress.close()
    if not done:
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
