"""Small results of a run to make reports of; images and maps are blobs on a gradient."""

import math

import numpy as np

from stlm_jax.config import default
from stlm_jax.evaluation.results import CategoryResult, ImageResult, RunResult
from stlm_jax.inference.cost import Cost
from stlm_jax.metrics.accumulator import Accumulator
from stlm_jax.weights.description import Calibration

SIZE = 48
NAMES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
THRESHOLD = 0.5
# Scores by kind. At the threshold 0.5: one false alarm, 0.7; two misses, 0.1 and 0.45.
SCORES = {
    "good": (0.2, 0.7, 0.3, 0.5),
    "crack": (0.9, 0.1, 0.6),
    "stain": (0.8, 0.45),
}
MOST_WRONG_FIRST = ["crack/001", "good/001", "stain/001"]
CALIBRATION = Calibration(THRESHOLD, 0.1, 0.4, "held_out", 8)
RATES = {
    "image_false_alarm_rate": 0.25,
    "image_miss_rate": 0.4,
    "pixel_false_alarm_rate": 0.01,
    "pixel_miss_rate": math.nan,
}


def image(name: str, score: float, has_truth: bool = True, size=(SIZE, SIZE)) -> ImageResult:
    """An image whose map has the score as its highest value; wider than high if `size` is."""
    height, width = size
    defect = name.split("/")[0]
    label = defect != "good"
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((y - height / 2) ** 2 + (x - width / 3) ** 2) / 60).astype(np.float32)
    picture = np.stack([x * 255 // width, y * 255 // height, 90 + 0 * x], -1).astype(np.uint8)
    mask = (blob > 0.5) & label if has_truth else None
    return ImageResult(name, defect, label, score, score / 2, picture, mask, score * blob)


def category(name: str = "brick", calibration: Calibration | None = CALIBRATION, **changes):
    """A category of `SCORES`, or of `images`."""
    images = changes.pop("images", None) or [
        image(f"{kind}/{number:03}", score)
        for kind, scores in SCORES.items()
        for number, score in enumerate(scores)
    ]
    results = []
    for power in (1, 2):
        accumulator = Accumulator(NAMES, bootstrap=50)
        for one in images:
            of_map = one.map**power
            accumulator.add(of_map, one.mask, one.score**power, one.label, one.defect)
        results.append(accumulator.result())
    fields = {
        "category": name,
        "result": results[0],
        "result_without_fa": results[1],
        "calibration": calibration,
        "rates": RATES if calibration else {},
        "images": images,
        "step": 170,
    }
    return CategoryResult(**fields | changes)


def run(*categories: CategoryResult) -> RunResult:
    """A run of the given categories."""
    return RunResult(list(categories), Cost(3_870_000, 2.1e9, 31.4, 10, "cpu"), default())
