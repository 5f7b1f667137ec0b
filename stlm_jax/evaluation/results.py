"""What an evaluation says of an image, a category and a run; every report is made from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import ml_collections
import numpy as np

from stlm_jax.data.records import Record
from stlm_jax.inference.cost import Cost
from stlm_jax.metrics import Result
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration

WITHOUT_FA = "_without_fa"  # ends the names of what is measured on the map without the FA module
MEAN = "mean"  # not a category but the mean over them
MISS, FALSE_ALARM, RIGHT = "miss", "false alarm", "right"

MetricTable = Mapping[str, Mapping[str, float]]  # {category: {metric: fraction of 1, or nan}}


@dataclass(frozen=True)
class ImageResult:
    """What a model says of a test image, with small pictures in the image's own proportions.

    Their longer side is `config.report.thumbnail` pixels, or the image's where that is less.
    """

    name: str  # `<defect>/<stem>`
    defect: str  # its type; `good` for a normal image
    label: bool  # whether the image is defective
    score: float  # mean of the largest pixels of the full-size map
    score_without_fa: float  # likewise of the map without the FA module; nan where there is none
    picture: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray | None  # (h, w) bool, the ground truth; None where it is not there
    map: np.ndarray  # (h, w) float32, on one scale for all images


class PanelImage(NamedTuple):
    """A test image that a picture is to be made of, with its map (S, S) float32."""

    record: Record
    map: np.ndarray
    score: float


@dataclass(frozen=True)
class CategoryResult:
    """What was measured of a category.

    Its images are all those that could be read, in the order of the data set; only the most wrong
    have their pictures (see `Measurements.images`).
    """

    category: str  # its name
    result: Result  # of the map with the FA module
    result_without_fa: Result
    calibration: Calibration | None  # None where there was no image to estimate it from
    rates: dict[str, float]  # as `ErrorRates.result` names them; empty without calibration
    images: list[ImageResult] = field(repr=False)
    step: int = 0  # of the checkpoint; 0 of a model that was not trained here

    @property
    def metrics(self) -> dict[str, float]:
        """{name: fraction} with the FA module, then `<name>_without_fa`; nan where undefined."""
        without = self.result_without_fa.values
        return {**self.result.values, **{f"{name}{WITHOUT_FA}": without[name] for name in without}}

    @property
    def replicates(self) -> dict[str, np.ndarray]:
        """(B,) on drawn sets of images of those `metrics` that have them."""
        without = self.result_without_fa.replicates
        named = {f"{name}{WITHOUT_FA}": without[name] for name in without}
        return {**self.result.replicates, **named}


@dataclass
class RunResult:
    """What was measured of a run: its categories with test images, in the configured order."""

    categories: list[CategoryResult]
    cost: Cost
    config: ml_collections.ConfigDict

    @cached_property
    def mean(self) -> dict[str, float]:
        """{metric: fraction} over the categories; nan where one has no value."""
        return with_mean({result.category: result.metrics for result in self.categories})[MEAN]


def with_mean(results: MetricTable) -> dict[str, dict[str, float]]:
    """Results with the mean over categories last; a mean that was there is computed anew.

    The mean of a metric is nan unless every category has a value: a mean over fewer categories
    is not comparable with published ones.
    """
    categories = {name: dict(values) for name, values in results.items() if name != MEAN}
    if not categories:
        raise UserError("no category to tabulate; evaluate at least one")
    metrics = dict.fromkeys(metric for values in categories.values() for metric in values)
    mean = {
        metric: math.fsum(values.get(metric, math.nan) for values in categories.values())
        / len(categories)
        for metric in metrics
    }
    return categories | {MEAN: mean}


def verdict(image: ImageResult, calibration: Calibration | None) -> str:
    """Whether the image is a miss, a false alarm or right at the threshold; "" without one."""
    if calibration is None:
        return ""
    if calibration.is_anomalous(image.score) == bool(image.label):
        return RIGHT
    return MISS if image.label else FALSE_ALARM


def most_wrong_first(
    images: Sequence[ImageResult], calibration: Calibration | None
) -> list[ImageResult]:
    """By how far the score lies on the wrong side of the threshold; those on the right side last.

    Without a threshold, by how low a defective image's score is and how high a good one's.
    """
    threshold = calibration.threshold if calibration else 0.0

    def key(image: ImageResult) -> tuple[bool, float, str]:
        above = float(image.score) - threshold
        wrong_by = -above if image.label else above
        return verdict(image, calibration) == RIGHT, -wrong_by, image.name

    return sorted(images, key=key)
