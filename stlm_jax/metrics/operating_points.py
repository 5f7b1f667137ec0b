"""The operating points of a threshold on anomaly scores, shared by every ranking metric."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class OperatingPoints:
    """What a falling threshold lets through, at each distinct score of a positive.

    Thresholds between two of these only add negatives, so a curve over all distinct scores has
    the same corners and every metric here the same value; only the negatives' *order* is needed,
    which is what makes this several times faster than ranking all pixels together.

    Attributes:
        thresholds: (K,) the distinct scores of positives, falling; the test is score >= threshold.
        true_positives: (K,) int64, positives at or above each threshold.
        false_positives_before: (K,) int64, negatives strictly above each threshold.
        false_positives: (K,) int64, negatives at or above each threshold.
        covered: (K,) float64 in 0..1, the weight of positives at or above each threshold.
        positives: how many positives there are.
        negatives: how many negatives there are.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives_before: np.ndarray
    false_positives: np.ndarray
    covered: np.ndarray
    positives: int
    negatives: int

    @classmethod
    def of(
        cls, positive: np.ndarray, negative: np.ndarray, weights: np.ndarray | None = None
    ) -> Self:
        """Rank the scores of positives against those of negatives.

        Args:
            positive: (P,) finite scores, at least one.
            negative: (M,) finite scores of the same dtype, at least one.
            weights: (P,) float64 share of each positive in `covered`; equal shares by default.
        """
        rising = np.sort(negative)
        values, group, counts = np.unique(positive, return_inverse=True, return_counts=True)
        shares = np.bincount(group, weights, minlength=len(values))[::-1].astype(np.float64)
        covered = np.cumsum(shares)
        return cls(
            thresholds=values[::-1],
            true_positives=np.cumsum(counts[::-1]),
            false_positives_before=len(rising) - np.searchsorted(rising, values, "right")[::-1],
            false_positives=len(rising) - np.searchsorted(rising, values, "left")[::-1],
            covered=covered / covered[-1],
            positives=len(positive),
            negatives=len(negative),
        )

    def area(self, limit: float = 1.0) -> float:
        """Area under `covered` over the false positive rate up to `limit`, divided by `limit`.

        The curve starts at (0, 0), joins its points by straight lines (so ties count half) and is
        interpolated linearly where it crosses `limit`, which lies in (0, 1].
        """
        rate = np.stack([self.false_positives_before, self.false_positives], axis=1).ravel()
        before = np.concatenate([[0.0], self.covered[:-1]])
        overlap = np.stack([before, self.covered], axis=1).ravel()
        x = np.concatenate([[0.0], rate / self.negatives, [1.0]])
        y = np.concatenate([[0.0], overlap, [1.0]])
        inside = int(np.searchsorted(x, limit, side="right"))
        if inside < len(x):
            at_limit = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
            x = np.append(x[:inside], limit)
            y = np.append(y[:inside], at_limit)
        return float(np.trapezoid(y, x) / limit)
