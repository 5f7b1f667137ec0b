"""Thresholds by the scores of images whose class is known."""

import math
from fractions import Fraction

import numpy as np

from stlm_jax.inference.scores import largest
from stlm_jax.metrics.classification import best_f1
from stlm_jax.metrics.operating_points import OperatingPoints


def conformal_rank(count: int, quantile: float) -> int:
    """Which of `count` values, the smallest being 1, a further one exceeds rarely enough.

    It is ceil((count + 1) · quantile): a further value of the same kind is above it with a
    probability of at most 1 − quantile. Of too few values it is count + 1, beyond the last.
    """
    return math.ceil((count + 1) * Fraction(str(quantile)))


class UpperQuantile:
    """The value of `conformal_rank` among so many that only the largest are kept."""

    def __init__(self, quantile: float, at_most: int):
        """`at_most` is how many values there may be; it sets how many are kept."""
        self._quantile, self._count = quantile, 0
        self._kept = np.empty(0, np.float32)
        self._keep = self._from_above(at_most)

    def add(self, values: np.ndarray) -> None:
        """Take an array of any shape, float32."""
        self._count += values.size
        self._kept = largest([self._kept, values.ravel()], self._keep)

    def value(self) -> float:
        """The quantile; of too few values the largest.

        Raises:
            ValueError: no value was added.
        """
        if not self._count:
            raise ValueError("a quantile of nothing")
        return float(np.sort(self._kept)[-self._from_above(self._count)])

    def _from_above(self, count: int) -> int:
        return max(count - conformal_rank(count, self._quantile) + 1, 1)


def best_f1_threshold(good: np.ndarray, defective: np.ndarray) -> float:
    """The threshold above which defective images lie with the largest F1.

    It is in the middle between the lowest score above and the highest one not above.

    Args:
        good: (N,) float32 scores.
        defective: (M,) float32 scores.
    """
    lowest = np.float32(best_f1(OperatingPoints.of(defective, good)).threshold)
    scores = np.concatenate([good, defective])
    below = scores[scores < lowest]
    if not below.size:
        return float(np.nextafter(lowest, np.float32(-1)))
    middle = np.float32((float(below.max()) + float(lowest)) / 2)
    return float(middle if middle < lowest else below.max())
