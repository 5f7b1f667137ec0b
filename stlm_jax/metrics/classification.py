"""Ranking metrics of a two-class problem: AUROC, average precision, best F1."""

from typing import NamedTuple

import numpy as np

from stlm_jax.metrics.operating_points import OperatingPoints


class BestF1(NamedTuple):
    """The largest F1 and the threshold (score >= threshold) that reaches it."""

    value: float
    threshold: float


def auroc(points: OperatingPoints) -> np.ndarray:
    """(…) area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    above = points.false_positives - points.negative / 2
    return 1 - np.sum(points.positive * above, axis=-1) / (points.positives * points.negatives)


def average_precision(points: OperatingPoints) -> np.ndarray:
    """(…) step-wise sum of precision × recall gained, `sklearn.metrics.average_precision_score`."""
    return np.sum(precision(points) * points.positive, axis=-1) / points.positives


def precision(points: OperatingPoints) -> np.ndarray:
    """(…, K) precision at the positives of each row.

    Of a row of several scores it is the mean over its positives, were they spread evenly among
    its negatives; 0 where nothing has been let through.
    """
    exact = _share(points.true_positives, points.false_positives)
    if points.tied.all():
        return exact
    true_before = points.true_positives - points.positive
    false_before = points.false_positives - points.negative
    half_gap = points.negative / np.maximum(2 * points.positive, 1)
    first = _share(true_before + np.minimum(points.positive, 1), false_before + half_gap)
    last = _share(points.true_positives, points.false_positives - half_gap)
    return np.where(points.tied | (points.positive == 0), exact, (first + last) / 2)


def f1max(points: OperatingPoints) -> np.ndarray:
    """(…) the largest F1 over all thresholds."""
    return _f1(points).max(axis=-1)


def best_f1(points: OperatingPoints) -> BestF1:
    """The largest F1 of one set; of equal ones the highest threshold.

    Raises:
        ValueError: the points keep no thresholds.
    """
    if points.thresholds is None:
        raise ValueError("these operating points keep no thresholds")
    f1 = _f1(points)
    best = int(f1.argmax())
    return BestF1(float(f1[best]), float(points.thresholds[best]))


def _f1(points: OperatingPoints) -> np.ndarray:
    predicted = points.true_positives + points.false_positives
    return 2 * points.true_positives / (predicted + points.positives[..., None])


def _share(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    return true / np.maximum(true + false, np.finfo(np.float64).tiny)
