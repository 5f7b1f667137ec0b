"""Metrics by name, and their evaluation on one category."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stlm_jax.errors import UserError
from stlm_jax.metrics.classification import auroc, average_precision, best_f1
from stlm_jax.metrics.errors import Undefined
from stlm_jax.metrics.inputs import Inputs

Metric = Callable[[Inputs], float]

METRICS: dict[str, Metric] = {
    "image_auroc": lambda inputs: auroc(inputs.image_points),
    "image_ap": lambda inputs: average_precision(inputs.image_points),
    "image_f1max": lambda inputs: best_f1(inputs.image_points).value,
    "pixel_auroc": lambda inputs: auroc(inputs.pixel_points),
    "pixel_ap": lambda inputs: average_precision(inputs.pixel_points),
    "pixel_f1max": lambda inputs: best_f1(inputs.pixel_points).value,
    "aupro": lambda inputs: inputs.pixel_points.area(0.3),
}
DEFAULT_NAMES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
_LIMITED = "aupro_"


class Evaluation(NamedTuple):
    """Values by metric name; `reasons` says why a value is nan, for those that are."""

    values: dict[str, float]
    reasons: dict[str, str]


def check_names(names: Iterable[str]) -> None:
    """Refuse an unknown metric before any work is done.

    Raises:
        UserError: a name is not in `METRICS` nor `aupro_<limit>` with a limit in (0, 1].
    """
    for name in names:
        _resolve(name)


def evaluate(maps, masks, scores=None, labels=None, names=DEFAULT_NAMES) -> dict[str, float]:
    """Metrics of one category, as fractions of 1.

    Args:
        maps: (N, H, W) anomaly maps, higher is more anomalous; any real dtype, any scale.
        masks: (N, H, W) ground truth, {0, 1} or bool.
        scores: (N,) image scores, for the image-level metrics.
        labels: (N,) {0, 1} or bool, defective or not; by default whether the mask has a pixel.
        names: `image_auroc`, `image_ap`, `image_f1max`, `pixel_auroc`, `pixel_ap`, `pixel_f1max`,
            `aupro` (false positive rate up to 0.3) or `aupro_<limit>` such as `aupro_0.05`.

    Returns:
        {name: value} in the order of `names`. A metric without a value on this set, such as
        AUROC when every image is good, is nan and the reason is logged as a warning.

    Raises:
        UserError: an unknown name.
        MetricError: material that is malformed; see `Inputs`.
    """
    values, reasons = evaluate_with_reasons(maps, masks, scores, labels, names)
    for name, reason in reasons.items():
        logging.getLogger(__name__).warning("%s is undefined: %s", name, reason)
    return values


def evaluate_with_reasons(maps, masks, scores=None, labels=None, names=DEFAULT_NAMES) -> Evaluation:
    """`evaluate`, handing the reasons back in place of logging them."""
    metrics = {name: _resolve(name) for name in names}
    inputs = Inputs(maps, masks, scores, labels)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(inputs)
        except Undefined as reason:
            values[name] = math.nan
            reasons[name] = str(reason)
    return Evaluation(values, reasons)


def _resolve(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    if name.startswith(_LIMITED):
        try:
            limit = float(name.removeprefix(_LIMITED))
        except ValueError:
            limit = math.nan
        if 0 < limit <= 1:
            return lambda inputs: inputs.pixel_points.area(limit)
    known = ", ".join(METRICS)
    raise UserError(
        f"unknown metric {name!r}; there are {known} and aupro_<limit> with a limit in (0, 1]"
    )
