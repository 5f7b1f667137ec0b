"""Scores of one image, sorted and counted in bins of float32.

Bins follow the floats themselves: 2^15 to every doubling of the score, and between 1/2 and 1 as
many to every halving of its distance from 1, so that a map that a sigmoid has saturated is
resolved near 1 as finely as near 0. Two scores in one bin differ by 2^-15 of their size or less;
bins from about 1 - 2^-9 to 1 hold a single float.
"""

from dataclasses import dataclass

import numpy as np

_BITS = 8  # of a float that its bin leaves out
_HALF, _ONE, _TOP = 0x3F000000, 0x3F800000, 0x7F800000  # 1/2, 1 and infinity as bits
_FINEST = 0x33000000  # below the smallest distance from 1 of a float between 1/2 and 1, as bits
_MIRRORED = _HALF - _FINEST
_FROM_ZERO = _TOP >> _BITS
_FROM_HALF = _FROM_ZERO + (_HALF >> _BITS)
_ABOVE_ONE = _FROM_HALF + (_MIRRORED >> _BITS) + 1
BINS = _ABOVE_ONE + ((_TOP - _ONE) >> _BITS) + 1


@dataclass(frozen=True)
class Runs:
    """The R bins that scores fall into, rising, and what is in each."""

    bins: np.ndarray  # (R,) int64 in 0..`BINS` - 1, each once
    starts: np.ndarray  # (R,) int64, the place of its first score among all, sorted
    counts: np.ndarray  # (R,) int64
    lowest: np.ndarray  # (R,) uint8, which of the floats of the bin the lowest score is
    highest: np.ndarray  # (R,) uint8, likewise

    @classmethod
    def of(cls, rising: np.ndarray) -> "Runs":
        """Counts scores (P,) float32, sorted, finite and without a negative zero."""
        position, offsets = _positions(rising)
        bins = np.right_shift(position, _BITS, out=position)
        for part, offset in offsets:
            bins[part] += offset
        starts = np.flatnonzero(np.append(len(bins) > 0, bins[1:] != bins[:-1]))
        ends = np.append(starts[1:], len(bins))[: len(starts)]
        lowest, highest = (_positions(rising[place])[0] for place in (starts, ends - 1))
        return cls(
            bins[starts].astype(np.int64),
            starts,
            ends - starts,
            lowest.astype(np.uint8),
            highest.astype(np.uint8),
        )


def without_negative_zero(values: np.ndarray) -> np.ndarray:
    """A copy as float32 in which no zero is negative, for `Runs.of`."""
    return np.add(values, 0, dtype=np.float32, casting="unsafe")


def _positions(rising: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, int]]]:
    """(P,) uint32 places of sorted scores among all floats of their range, and the ranges.

    A range is where its scores are and the number of its first bin.
    """
    zero, half = np.searchsorted(rising, np.array([0, 0.5], np.float32))
    one = np.searchsorted(rising, np.float32(1), "right")
    below, low, high, above = (
        slice(0, zero), slice(zero, half), slice(half, one), slice(one, None)
    )  # fmt: skip
    bits = rising.view(np.uint32)
    position = np.empty(len(rising), np.uint32)
    np.subtract(_TOP, bits[below] & 0x7FFFFFFF, out=position[below])
    position[low] = bits[low]
    from_one = (np.float32(1) - rising[high]).view(np.uint32)  # exact between 1/2 and 1
    np.subtract(_HALF, np.maximum(from_one, _FINEST), out=position[high])
    np.subtract(bits[above], _ONE, out=position[above])
    return position, [(low, _FROM_ZERO), (high, _FROM_HALF), (above, _ABOVE_ONE)]
