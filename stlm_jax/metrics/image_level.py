"""Image-level metrics by scikit-learn: AUROC, average precision and best F1.

scikit-learn is imported where it is called: the import takes longer than all other imports of
this package together, and most who import `metrics` want names or types only.
"""

from typing import NamedTuple

import numpy as np

_SMALLEST_GAP = 1e-12  # below that between different F1 of up to 500,000 images


class LabelledScores(NamedTuple):
    """Image scores (N,) float32 or float64 with their classes (N,) bool, true for defective."""

    labels: np.ndarray
    scores: np.ndarray


def auroc(images: LabelledScores) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(images.labels, images.scores)


def average_precision(images: LabelledScores) -> float:
    """Step-wise sum of precision times the recall gained."""
    from sklearn.metrics import average_precision_score

    return average_precision_score(images.labels, images.scores)


def f1max(images: LabelledScores) -> float:
    """The largest F1 over all thresholds."""
    return best_f1(images)[0]


def best_f1(images: LabelledScores) -> tuple[float, float]:
    """The largest F1 and the score from which on images are judged defective to reach it.

    Of equal F1 it is the highest such score, exactly as it was given.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(images.labels, images.scores)
    precision, recall = precision[:-1], recall[:-1]  # the last point is of no threshold
    both = np.maximum(precision + recall, np.finfo(np.float64).tiny)  # 0 where no defect is found
    f1 = 2 * precision * recall / both
    # Computed from rounded ratios, equal F1 may differ in their last bit.
    highest = np.flatnonzero(f1 >= f1.max() - _SMALLEST_GAP)[-1]
    return float(f1[highest]), float(thresholds[highest])
