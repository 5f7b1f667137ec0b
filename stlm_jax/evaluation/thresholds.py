"""Thresholds by the scores of images whose class is known."""

import math
from fractions import Fraction

import numpy as np

from stlm_jax.inference.scores import largest
from stlm_jax.metrics.image_level import LabelledScores, best_f1


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
        """Takes an array of any shape, float32."""
        self._count += values.size
        self._kept = largest([self._kept, values.ravel()], self._keep)

    def value(self) -> float:
        """The quantile; of too few values the largest."""
        if not self._count:
            raise ValueError("a quantile of nothing")
        return float(np.sort(self._kept)[-self._from_above(self._count)])

    def _from_above(self, count: int) -> int:
        return max(count - conformal_rank(count, self._quantile) + 1, 1)


def best_f1_threshold(good: np.ndarray, defective: np.ndarray) -> float:
    """The threshold between the scores of `good` (N,) and `defective` (M,) with the largest F1.

    It is in the middle between the lowest score above and the highest one not above. Scores are
    float32 and are compared as such: in another precision a threshold could fall onto a score.
    """
    scores = np.concatenate([good, defective])
    labels = np.arange(len(scores)) >= len(good)
    lowest = np.float32(best_f1(LabelledScores(labels, scores))[1])
    below = scores[scores < lowest]
    if not below.size:
        return float(np.nextafter(lowest, np.float32(-1)))
    middle = np.float32((float(below.max()) + float(lowest)) / 2)
    return float(middle if middle < lowest else below.max())
