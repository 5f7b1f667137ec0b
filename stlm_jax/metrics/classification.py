"""Ranking metrics of operating points: AUROC, average precision, best F1.

Pixel metrics, and those of resampled images: scikit-learn has no call for many sets at once, and
a call for each of a thousand replicates would take longer than everything else.
"""

import numpy as np

from stlm_jax.metrics.operating_points import OperatingPoints


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
    predicted = points.true_positives + points.false_positives
    f1 = 2 * points.true_positives / (predicted + points.positives[..., None])
    return f1.max(axis=-1)


def _share(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    return true / np.maximum(true + false, np.finfo(np.float64).tiny)
