"""Ranking metrics of a two-class problem: AUROC, average precision, best F1."""

from typing import NamedTuple

import numpy as np

from stlm_jax.metrics.operating_points import OperatingPoints


class BestF1(NamedTuple):
    """The largest F1 and the threshold (score >= threshold) that reaches it."""

    value: float
    threshold: float


def auroc(points: OperatingPoints) -> float:
    """Area under the ROC curve; the chance that a positive outranks a negative, ties half."""
    gained = np.diff(points.true_positives, prepend=0)
    above = (points.false_positives_before + points.false_positives) / 2
    return float(1 - np.sum(gained * above) / (points.positives * points.negatives))


def average_precision(points: OperatingPoints) -> float:
    """Step-wise sum of precision × recall gained, as `sklearn.metrics.average_precision_score`."""
    precision = points.true_positives / (points.true_positives + points.false_positives)
    gained = np.diff(points.true_positives, prepend=0)
    return float(np.sum(precision * gained) / points.positives)


def best_f1(points: OperatingPoints) -> BestF1:
    """The largest F1 over all thresholds; of equal ones the highest threshold."""
    predicted = points.true_positives + points.false_positives
    f1 = 2 * points.true_positives / (predicted + points.positives)
    best = int(f1.argmax())
    return BestF1(float(f1[best]), float(points.thresholds[best]))
