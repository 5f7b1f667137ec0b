"""How far a metric of binned scores may lie from that of the scores themselves.

A bin whose scores are all the same is a row of its own and changes nothing. In any other, nothing
is known of the order of its scores, so the true curve may take any way from one end of the bin to
the other that does not fall; these bounds allow for the worst of them.
"""

import numpy as np

from stlm_jax.metrics import classification, instances
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.overlap_curves import clipped_steps


def auroc(points: OperatingPoints) -> float:
    """Of `classification.auroc`."""
    pairs = np.sum(points.positive * points.negative * ~points.tied)
    return float(pairs / (2 * points.positives * points.negatives))


def average_precision(points: OperatingPoints) -> float:
    """Of `classification.average_precision`."""
    low, high = _precision_range(points)
    precision = classification.precision(points)
    most = np.maximum(high - precision, precision - low)
    return float(np.sum(most * points.positive) / points.positives)


def f1max(points: OperatingPoints) -> float:
    """Of `classification.f1max`: what a bin could reach were all its positives above the rest."""
    false_before = points.false_positives - points.negative * ~points.tied
    predicted = points.true_positives + false_before
    best = np.max(2 * points.true_positives / (predicted + points.positives))
    return float(max(best - classification.f1max(points), 0))


def area(points: OperatingPoints, weight: str, limit: float) -> float:
    """Of `overlap_curves.area`."""
    return _corners(points, weight, points.false_positive_rate(), 0.0, limit) / limit


def log_area(points: OperatingPoints, weight: str, lower: float, upper: float) -> float:
    """Of `overlap_curves.log_area`."""
    rate = np.maximum(points.false_positive_rate(), np.finfo(np.float64).tiny)
    span = _corners(points, weight, np.log(rate), np.log(lower), np.log(upper))
    return span / float(np.log(upper / lower))


def instance_average(points: OperatingPoints) -> float:
    """Of `instances.average`, which rises with the precision of any row."""
    low, high = (instances.average(points, rows) for rows in _precision_extremes(points))
    value = instances.average(points)
    return float(max(high - value, value - low))


def instance_at_recall(points: OperatingPoints) -> float:
    """Of `instances.at_recall`."""
    extremes = _precision_extremes(points)
    low, high = (instances.at_recall(points, at_rows=rows) for rows in extremes)
    value = instances.at_recall(points)
    return float(max(high - value, value - low))


def _corners(
    points: OperatingPoints, weight: str, x: np.ndarray, lower: float, upper: float
) -> float:
    """The largest area between the straight line and any other way through the rows."""
    width, share = clipped_steps(x, lower, upper)
    height = np.diff(points.recall(weight)) * ~points.tied
    return float(np.sum(width * height * np.maximum(share, 1 - share)))


def _precision_range(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the least and the largest mean precision at the positives of each row."""
    first, last = (_precision_at(points, count) for count in (1, points.positive))
    return _unless_tied(points, (first + last) / 2)  # precision is concave in between


def _precision_extremes(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the least and the largest precision at any positive of each row."""
    return _unless_tied(points, _precision_at(points, 1))


def _precision_at(points: OperatingPoints, count) -> np.ndarray:
    """(K,) precision at that positive of each row, were all its negatives above."""
    true = points.true_positives - points.positive + count
    return true / (true + points.false_positives)


def _unless_tied(points: OperatingPoints, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = classification.precision(points)
    highest = points.true_positives / np.maximum(
        points.true_positives + points.false_positives - points.negative, 1
    )
    known = points.tied | (points.positive == 0)
    return np.where(known, exact, low), np.where(known, exact, highest)
