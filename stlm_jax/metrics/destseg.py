"""AUPRO as the published STLM and DeSTSeg code takes it, for comparison with those tables.

It resamples the ROC curve of every region to one length by the index of its points, not by its
false positive rate, and averages both. With many tied scores the result is another than AUPRO's.
"""

import numpy as np

from stlm_jax.metrics.checks import Undefined
from stlm_jax.metrics.pixel_weights import region_numbers

_RELATIVE, _ABSOLUTE = 1e-5, 1e-8  # within which a point of the curve counts as at the limit


class RegionScores:
    """The scores of normal pixels and of each 8-connected region, over any number of images."""

    def __init__(self) -> None:
        self.normal: list[np.ndarray] = []
        self.regions: list[np.ndarray] = []

    def add(self, values: np.ndarray, mask: np.ndarray) -> None:
        """Takes an image: its map (H, W) and its mask (H, W) bool."""
        self.normal.append(values[~mask])
        if mask.any():
            number = region_numbers(mask)
            grouped = values[mask][np.argsort(number, kind="stable")]
            self.regions += np.split(grouped, np.cumsum(np.bincount(number))[:-1])

    def merge(self, other: "RegionScores") -> None:
        """Takes the images of another."""
        self.normal += other.normal
        self.regions += other.regions


def aupro(scores: RegionScores, limit: float) -> float:
    """Area under the averaged curves up to about `limit`, divided by the rate where they end.

    Takes time in proportion to regions × distinct normal scores within the limit. Undefined where
    the highest score of all is that of too many normal pixels.
    """
    normal = _Falling(np.concatenate(scores.normal))
    every = np.union1d(normal.values, -np.concatenate(scores.regions))
    length = 1 + int(np.count_nonzero(normal.share(every) <= limit))
    if length == 1:
        raise Undefined(f"no threshold has a false positive rate of {limit:g} or less")
    curves = [_resampled(normal, region, limit, length) for region in scores.regions]
    rate, recall = np.mean(curves, axis=0)
    order = np.argsort(rate, kind="stable")
    return float(np.trapezoid(recall[order], rate[order]) / rate[-1])


class _Falling:
    """Distinct scores, negated so that they rise, and how many pixels reach each."""

    def __init__(self, scores: np.ndarray):
        self.values, counts = np.unique(-scores, return_counts=True)
        self._reached = np.append(0, np.cumsum(counts))

    def share(self, values: np.ndarray) -> np.ndarray:
        """Share of pixels that reach each of some negated scores."""
        return self._reached[np.searchsorted(self.values, values, "right")] / self._reached[-1]


def _resampled(normal: _Falling, region: np.ndarray, limit: float, length: int) -> np.ndarray:
    """(2, length) false positive rate and recall of one region."""
    own = _Falling(region)
    values = np.union1d(normal.values, own.values)
    rate = np.append(0, normal.share(values))
    recall = np.append(0, own.share(values))
    within = rate[rate <= limit].max()
    last = limit if within > 0 else rate[rate > limit].min()
    kept = np.flatnonzero(rate <= last)
    new = np.arange(length, dtype=np.float64)
    if np.isclose(rate[kept].max(), limit, _RELATIVE, _ABSOLUTE):
        place = kept / kept.max() * (length - 1)
    else:  # one more point, beyond the limit, and the last sample between it and the one before
        beyond = int(np.searchsorted(rate, limit))
        kept = np.append(kept, beyond)
        place = kept / kept.max() * (length - 1)
        step = (limit - rate[beyond - 1]) / (rate[beyond] - rate[beyond - 1])
        new[-1] = place[-2] + (place[-1] - place[-2]) * step
    # `place` rises but for a last point that may repeat an earlier one.
    left = np.searchsorted(np.maximum.accumulate(place), new) - 1
    left = np.clip(left, 0, len(place) - 2)
    gap = place[left + 1] - place[left]
    share = np.divide(new - place[left], gap, where=gap != 0, out=np.zeros(length))
    curves = np.stack([rate[kept], recall[kept]])
    return curves[:, left] + share * (curves[:, left + 1] - curves[:, left])
