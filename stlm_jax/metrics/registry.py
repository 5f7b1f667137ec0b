"""Metrics by name, and their exact evaluation on one category."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from stlm_jax.metrics import (
    bounds,
    classification,
    destseg,
    image_level,
    instances,
    overlap_curves,
)
from stlm_jax.metrics.checks import Undefined
from stlm_jax.metrics.inputs import Inputs
from stlm_jax.metrics.pixel_weights import INSTANCE, REGION, SATURATED, SHARE, Region
from stlm_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Metric:
    """How a metric is computed.

    Attributes:
        source: what it is computed from: the attribute of that name of `Inputs` and `Streamed`.
        value: the metric of that.
        bound: how much rows of several scores may have changed the value; by default they do not.
        weight: which of `pixel_weights` it needs.
        of_sets: the metric of operating points with a leading axis, one value a set; by default
            `value`, which then takes them too.
    """

    source: str
    value: Callable[[Any], Any]
    bound: Callable[[Any], float] = lambda _: 0.0
    weight: str | None = None
    of_sets: Callable[[Any], Any] | None = None


class Evaluation(NamedTuple):
    """Values by metric name; `reasons` says why a value is nan, for those that are."""

    values: dict[str, float]
    reasons: dict[str, str]


def _destseg(limit: float) -> Metric:
    return Metric("region_scores", partial(destseg.aupro, limit=limit))


def _overlap(source: str, weight: str, limit: float) -> Metric:
    value = partial(overlap_curves.area, weight=weight, limit=limit)
    bound = partial(bounds.area, weight=weight, limit=limit)
    return Metric(source, value, bound, weight)


def _aupimo(lower: float, upper: float) -> Metric:
    value = partial(overlap_curves.log_area, weight=SHARE, lower=lower, upper=upper)
    bound = partial(bounds.log_area, weight=SHARE, lower=lower, upper=upper)
    return Metric("share_points", value, bound, SHARE)


# By name, with the limit of the false positive rate that holds where the name has none.
_LIMITED: dict[str, Callable[..., Metric]] = {
    "aupro_destseg": partial(_destseg, limit=0.3),
    "aupro": partial(_overlap, "pixel_points", REGION, limit=0.3),
    "spro": partial(_overlap, "saturated_points", SATURATED, limit=0.05),
}
METRICS: dict[str, Metric] = {
    "image_auroc": Metric("images", image_level.auroc, of_sets=classification.auroc),
    "image_ap": Metric(
        "images", image_level.average_precision, of_sets=classification.average_precision
    ),
    "image_f1max": Metric("images", image_level.f1max, of_sets=classification.f1max),
    "pixel_auroc": Metric("pixel_points", classification.auroc, bounds.auroc),
    "pixel_ap": Metric("pixel_points", classification.average_precision, bounds.average_precision),
    "pixel_f1max": Metric("pixel_points", classification.f1max, bounds.f1max),
    **{name: metric() for name, metric in _LIMITED.items()},
    "iap": Metric("pixel_points", instances.average, bounds.instance_average, INSTANCE),
    "iap90": Metric("pixel_points", instances.at_recall, bounds.instance_at_recall, INSTANCE),
    "aupimo": _aupimo(1e-5, 1e-4),
}
DEFAULT_NAMES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


def check_names(names: Iterable[str]) -> None:
    """Refuses an unknown metric before any work is done."""
    for name in names:
        resolve(name)


def evaluate(
    maps,
    masks,
    scores=None,
    labels=None,
    names=DEFAULT_NAMES,
    regions: Sequence[Sequence[Region] | None] | None = None,
) -> dict[str, float]:
    """Metrics of one category, exactly, as fractions of 1.

    Args:
        maps: (N, H, W) anomaly maps, higher is more anomalous; any real dtype, any scale.
        masks: (N, H, W) ground truth, {0, 1} or bool.
        scores: (N,) image scores, for the image-level metrics.
        labels: (N,) {0, 1} or bool, defective or not; by default whether the mask has a pixel.
            Needed where a small defect may have vanished from a resized mask.
        names: of `METRICS`: `image_auroc`, `image_ap`, `image_f1max`, `pixel_auroc`, `pixel_ap`,
            `pixel_f1max`; `aupro` (false positive rate up to 0.3) and `aupro_destseg`, the same
            as published with DeSTSeg; `iap` and `iap90`; `aupimo` (rates of good images from 1e-5
            to 1e-4); `spro` (up to 0.05). Those with a limit take another as `aupro_0.05`.
        regions: of each image None, or a list of (mask (H, W) bool, pixels that saturate it), one
            for each annotated anomaly; for `spro`.

    Returns:
        {name: value} in the order of `names`. A metric without a value on this set, such as
        AUROC when every image is good, is nan and the reason is logged as a warning.
    """
    values, reasons = evaluate_with_reasons(maps, masks, scores, labels, names, regions)
    for name, reason in reasons.items():
        logging.getLogger(__name__).warning("%s is undefined: %s", name, reason)
    return values


def evaluate_with_reasons(
    maps, masks, scores=None, labels=None, names=DEFAULT_NAMES, regions=None
) -> Evaluation:
    """`evaluate`, handing the reasons back in place of logging them."""
    metrics = {name: resolve(name) for name in names}
    return values_of(metrics, Inputs(maps, masks, scores, labels, regions, weights_of(metrics)))


def weights_of(metrics: dict[str, Metric]) -> frozenset[str]:
    """The weights of operating points that some metrics need."""
    return frozenset(metric.weight for metric in metrics.values() if metric.weight)


def values_of(metrics: dict[str, Metric], material: Any) -> Evaluation:
    """Metrics of `Inputs` or `Streamed`."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric.value(getattr(material, metric.source)))
        except Undefined as reason:
            values[name] = math.nan
            reasons[name] = str(reason)
    return Evaluation(values, reasons)


def resolve(name: str) -> Metric:
    """The metric of a name: one of `METRICS`, or one of `_LIMITED` with a limit in the name."""
    if name in METRICS:
        return METRICS[name]
    prefix, _, limit = name.rpartition("_")
    if prefix in _LIMITED:
        try:
            if 0 < float(limit) <= 1:
                return _LIMITED[prefix](limit=float(limit))
        except ValueError:
            pass  # not a number: unknown like any other name
    known = ", ".join(METRICS)
    limited = ", ".join(f"{prefix}_<limit>" for prefix in sorted(_LIMITED))
    raise UserError(
        f"unknown metric {name!r}; there are {known} and {limited} with a limit in (0, 1]"
    )
