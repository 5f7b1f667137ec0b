"""What an evaluation finds of an image, a category and a run; every report is made from it."""

from dataclasses import dataclass, field

import ml_collections
import numpy as np

from stlm_jax.calibration import Calibration
from stlm_jax.cost import Cost
from stlm_jax.metrics import Result

WITHOUT_FA = "_without_fa"  # ends the names of what is measured on the map without the FA module


@dataclass(frozen=True)
class ImageResult:
    """What a model says of a test image, with small pictures.

    Attributes:
        name: `<defect>/<stem>`.
        defect: type of the defect; `good` for a normal image.
        label: whether the image is defective.
        score: mean of the largest pixels of the full-size map.
        score_without_fa: likewise of the map without the FA module.
        picture: (h, w, 3) uint8, the image in its own proportions; its longer side is
            `config.report.thumbnail` pixels, or its own where that is less.
        mask: (h, w) bool, the ground truth; None where it is not there.
        map: (h, w) float32, the anomaly map, on one scale for all images.
    """

    name: str
    defect: str
    label: bool
    score: float
    score_without_fa: float
    picture: np.ndarray
    mask: np.ndarray | None
    map: np.ndarray


@dataclass(frozen=True)
class CategoryResult:
    """What was measured of a category.

    Attributes:
        category: its name.
        metrics: {name: fraction} with the FA module, then `<name>_without_fa`; nan where undefined.
        result: intervals, reasons, values by defect and curves of the map with the FA module.
        result_without_fa: likewise of the map without.
        calibration: threshold and normaliser, estimated without the test split; None where there
            was no image to estimate them from.
        rates: `image_false_alarm_rate`, `image_miss_rate`, `pixel_false_alarm_rate` and
            `pixel_miss_rate` at the thresholds, fractions; nan where undefined; empty without
            calibration.
        images: every test image that could be read, in the order of the data set. Of those that
            are not among the most wrong, as many as `config.report.gallery` and
            `config.evaluate.panels` ask for, the pictures are empty, (0, 0).
        step: of the checkpoint; 0 of a model that was not trained here.
    """

    category: str
    metrics: dict[str, float]
    result: Result
    result_without_fa: Result
    calibration: Calibration | None
    rates: dict[str, float]
    images: list[ImageResult] = field(repr=False)
    step: int = 0


@dataclass
class RunResult:
    """What was measured of a run.

    Attributes:
        categories: in the order of the configuration, those that have test images.
        mean: {name: fraction} over the categories; nan where one has no value.
        cost: parameters, arithmetic and time of the model.
        config: the configuration that was evaluated.
    """

    categories: list[CategoryResult]
    mean: dict[str, float]
    cost: Cost
    config: ml_collections.ConfigDict
