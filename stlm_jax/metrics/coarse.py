"""A small histogram of one image's scores, from which images can be resampled."""

import hashlib
from dataclasses import dataclass

import numpy as np

MAX_BINS = 4096


@dataclass(frozen=True)
class Coarse:
    """Sums over bins of `runs` that are merged until there are few."""

    bins: np.ndarray  # (R,) int64 rising, those of `runs` shifted right
    amounts: np.ndarray  # (C, R) float64 sums
    shift: int  # by how many bits

    @classmethod
    def of(cls, bins: np.ndarray, amounts: np.ndarray) -> "Coarse":
        """Merges bins (R,) rising with their sums (C, R), two by two, down to `MAX_BINS`."""
        shift = 0
        while len(bins) > MAX_BINS:
            # So many bits never merge more than needed: each halves the number at most.
            more = max(1, (len(bins) // MAX_BINS).bit_length() - 1)
            bins, shift = bins >> more, shift + more
            starts = np.flatnonzero(np.diff(bins, prepend=-1))
            bins, amounts = bins[starts], np.add.reduceat(amounts, starts, axis=1)
        return cls(bins, amounts, shift)

    def digest(self) -> bytes:
        """The same for the same histogram, otherwise another."""
        return hashlib.sha256(self.bins.tobytes() + self.amounts.tobytes()).digest()


def common_bins(histograms: list[Coarse]) -> tuple[int, np.ndarray]:
    """The least shift that all can be brought to, and (K,) the bins in use there, rising.

    K is `MAX_BINS` or less.
    """
    shift = max((histogram.shift for histogram in histograms), default=0)
    union = np.zeros(0, np.int64)
    for histogram in histograms:
        union = np.union1d(union, histogram.bins >> (shift - histogram.shift))
    while len(union) > MAX_BINS:
        shift, union = shift + 1, np.unique(union >> 1)
    return shift, union
