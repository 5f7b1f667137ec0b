"""The operating points of a threshold on anomaly scores, shared by every ranking metric."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np


@dataclass(frozen=True)
class OperatingPoints:
    """What a falling threshold lets through, row by row.

    A row is one score, or several scores whose order is not known. Every metric joins the ends of
    rows by straight lines, so that what is tied counts half. Leading axes, where there are any,
    are sets of their own over the same rows.
    """

    positive: np.ndarray  # (…, K) float64, positives in each row
    negative: np.ndarray  # (…, K) float64, negatives in each row
    # By name, (…, K) float64, weight of the positives in each row.
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    # (K,) or (1,) bool, whether a row is one score.
    tied: np.ndarray = field(default_factory=lambda: np.ones(1, bool))
    resolution: float = 0.0  # the false positive rate of a single negative, where it matters

    @classmethod
    def of(
        cls,
        positive: np.ndarray,
        negative: np.ndarray,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """Scores of positives (P,) against negatives (M,), finite and of one dtype, exactly.

        Of both there is at least one; `weights` are (P,) float64 by name. There are two rows for
        each distinct score of a positive, the negatives above it and what ties with it, and a last
        one: only the *order* of the other negatives could tell more, and no metric asks for it.
        This is several times faster than ranking all of them together.
        """
        rising = np.sort(negative)
        values, group, counts = np.unique(positive, return_inverse=True, return_counts=True)
        above = len(rising) - np.searchsorted(rising, values, "right")[::-1]
        reached = len(rising) - np.searchsorted(rising, values, "left")[::-1]
        passed = np.append(np.stack([above, reached], axis=1).ravel(), len(rising))  # (2 D + 1,)
        sums = {
            name: np.bincount(group, weight, minlength=len(values))[::-1]
            for name, weight in (weights or {}).items()
        }
        return cls(
            positive=_in_odd_rows(counts[::-1]),
            negative=np.diff(passed, prepend=0).astype(np.float64),
            weights={name: _in_odd_rows(sum_) for name, sum_ in sums.items()},
            tied=np.ones(len(passed), bool),
        )

    @cached_property
    def true_positives(self) -> np.ndarray:
        """(…, K) positives in each row and above."""
        return np.cumsum(self.positive, axis=-1)

    @cached_property
    def false_positives(self) -> np.ndarray:
        """(…, K) negatives in each row and above."""
        return np.cumsum(self.negative, axis=-1)

    @property
    def positives(self) -> np.ndarray:
        """(…) how many positives there are."""
        return self.true_positives[..., -1]

    @property
    def negatives(self) -> np.ndarray:
        """(…) how many negatives there are."""
        return self.false_positives[..., -1]

    def false_positive_rate(self) -> np.ndarray:
        """(…, K + 1) from 0 to 1: before the first row and after each."""
        return _from_zero(self.false_positives) / self.negatives[..., None]

    def recall(self, weight: str | None = None) -> np.ndarray:
        """(…, K + 1) from 0 to 1: share of positives found, or of their `weight`."""
        sums = self.true_positives if weight is None else np.cumsum(self.weights[weight], axis=-1)
        return _from_zero(sums) / sums[..., -1:]


def _from_zero(sums: np.ndarray) -> np.ndarray:
    """(…, K) to (…, K + 1) with 0 before the first."""
    return np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)


def _in_odd_rows(values: np.ndarray) -> np.ndarray:
    rows = np.zeros(2 * len(values) + 1)
    rows[1::2] = values
    return rows
