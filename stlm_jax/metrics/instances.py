"""Instance average precision (IAP): precision of pixels where half of each region is found.

Zhang et al., "DeSTSeg" (CVPR 2023), section 4.1: a region counts as found at a threshold that more
than half of its pixels reach. Unlike in the published code, background is never counted as found,
whatever the threshold.
"""

import numpy as np

from stlm_jax.metrics.classification import precision
from stlm_jax.metrics.operating_points import OperatingPoints

_ROUNDING = 1e-9  # of a sum of counts of regions


def average(points: OperatingPoints, at_rows: np.ndarray | None = None) -> np.ndarray:
    """(…) IAP: the mean over regions of the envelope of precision.

    The weights `instance` of the points are 1 at the score that finds a region; `at_rows` (…, K)
    stands in for the precision of each row.
    """
    instances = points.weights["instance"]
    return np.sum(_envelope(points, at_rows) * instances, axis=-1) / instances.sum(axis=-1)


def at_recall(
    points: OperatingPoints, recall: float = 0.9, at_rows: np.ndarray | None = None
) -> np.ndarray:
    """(…) the envelope of precision where that share of regions is first found, as IAP@90."""
    reached = points.recall("instance")[..., 1:] >= recall - _ROUNDING
    row = reached.argmax(axis=-1)[..., None]
    return np.take_along_axis(_envelope(points, at_rows), row, axis=-1)[..., 0]


def _envelope(points: OperatingPoints, at_rows: np.ndarray | None) -> np.ndarray:
    """(…, K) the best precision at which as many regions are found, or more."""
    values = precision(points) if at_rows is None else at_rows
    of_instances = np.where(points.weights["instance"] > 0, values, 0)
    return np.maximum.accumulate(of_instances[..., ::-1], axis=-1)[..., ::-1]
