"""Curves to draw: ROC, precision over recall, and per-region overlap."""

import heapq
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from stlm_jax.metrics import classification
from stlm_jax.metrics.checks import Undefined
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.pixel_weights import REGION
from stlm_jax.metrics.streamed import Streamed

MAX_POINTS = 512


class Curve(NamedTuple):
    """A polygon line: (M,) float64 each, in 0..1, M at most `MAX_POINTS`."""

    x: np.ndarray
    y: np.ndarray


def _roc(points: OperatingPoints, weight: str | None = None) -> Curve:
    return Curve(points.false_positive_rate(), points.recall(weight))


def _precision_recall(points: OperatingPoints) -> Curve:
    with_positives = points.positive > 0
    recall = points.recall()[1:][with_positives]
    precision = classification.precision(points)[with_positives]
    return Curve(np.append(0, recall), np.append(precision[0], precision))


_CURVES: dict[str, tuple[str, Callable[[OperatingPoints], Curve]]] = {
    "pixel_roc": ("pixel_points", _roc),
    "pixel_pr": ("pixel_points", _precision_recall),
    "pro": ("pixel_points", partial(_roc, weight=REGION)),
    "image_roc": ("image_points", _roc),
    "image_pr": ("image_points", _precision_recall),
}


def curves_of(source: Streamed) -> dict[str, Curve]:
    """Those of the curves that are defined, by name; the weights `region` are needed.

    `pixel_roc` and `image_roc` have recall over false positive rate, `pixel_pr` and `image_pr`
    precision over recall, `pro` mean overlap of regions over false positive rate.
    """
    result = {}
    for name, (points, curve) in _CURVES.items():
        try:
            result[name] = decimated(curve(getattr(source, points)))
        except Undefined:
            continue
    return result


def decimated(curve: Curve) -> Curve:
    """The ends and corners of a curve: always the point next that lies farthest from the rest."""
    line = np.stack(curve, axis=1)  # (K, 2)
    kept = [0, len(line) - 1]
    open_parts = [_farthest(line, 0, len(line) - 1)]
    while open_parts and len(kept) < MAX_POINTS:
        distance, first, middle, last = heapq.heappop(open_parts)
        if distance >= 0:
            break
        kept.append(middle)
        for part in ((first, middle), (middle, last)):
            if part[1] - part[0] > 1:
                heapq.heappush(open_parts, _farthest(line, *part))
    return Curve(*line[np.unique(kept)].T)


def _farthest(line: np.ndarray, first: int, last: int) -> tuple[float, int, int, int]:
    """Minus the distance from the chord, and the place, of the point farthest from it."""
    if last - first < 2:
        return 0.0, first, first, last
    chord = line[last] - line[first]
    away = line[first + 1 : last] - line[first]
    length = float(np.hypot(*chord))
    distances = (
        np.abs(away[:, 0] * chord[1] - away[:, 1] * chord[0]) / length
        if length
        else np.hypot(*away.T)
    )
    middle = int(distances.argmax())
    return -float(distances[middle]), first, first + 1 + middle, last
