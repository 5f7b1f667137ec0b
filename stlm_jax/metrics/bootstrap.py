"""Intervals of metrics over the images: resampled with repetition, good and defective apart."""

from collections.abc import Mapping, Sequence

import numpy as np

from stlm_jax.metrics.checks import Undefined
from stlm_jax.metrics.coarse import Coarse, common_bins
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.part import GOOD, NORMAL, POSITIVE
from stlm_jax.metrics.pixel_weights import SHARE
from stlm_jax.metrics.registry import Metric
from stlm_jax.metrics.streamed import Streamed

_LEVEL = 0.95
_IMAGES, _REPLICATES = 128, 64  # handled at once, so that memory stays bounded
Histograms = Sequence[tuple[Coarse, Coarse] | None]  # of normal and of defective pixels


def draw(labels: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """(B + 1, N) how often each image counts: once in the first row, then as drawn B times.

    The numbers of good and of defective images, by `labels` (N,) bool, stay what they are. Equal
    labels have equal counts: replicates of two models pair where the images are in one order.
    """
    rng = np.random.default_rng(seed)
    counts = np.ones((replicates + 1, len(labels)))
    for label in (False, True):
        chosen = np.flatnonzero(labels == label)
        if len(chosen):
            even = np.full(len(chosen), 1 / len(chosen))
            counts[1:, chosen] = rng.multinomial(len(chosen), even, replicates)
    return counts


def replicated(
    metrics: dict[str, Metric], values: dict[str, float], replicates: "Replicates"
) -> dict[str, np.ndarray]:
    """(B,) float64 on the drawn sets, of those metrics that have a value; nan where undefined.

    Histograms of images are coarser than what the values are computed from: replicates are moved
    by the difference, and clipped to [0, 1], where every metric lies. `aupro_destseg`, for which
    histograms do not suffice, has none.
    """
    result = {}
    for name, metric in metrics.items():
        if not np.isfinite(values[name]) or metric.source == "region_scores":
            continue
        try:
            batches = [_values(metric, points) for points in replicates.of(metric)]
        except Undefined:
            continue
        once, drawn = np.split(np.concatenate(batches), [1])
        if np.isfinite(once[0]):
            result[name] = np.clip(drawn + (values[name] - once[0]), 0, 1)
    return result


def intervals(replicates: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals by metric; none where most replicates are undefined."""
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    result = {}
    for name, drawn in replicates.items():
        defined = drawn[np.isfinite(drawn)]
        if 2 * len(defined) > len(drawn):
            low, high = np.quantile(defined, tails)
            result[name] = (float(low), float(high))
    return result


def _values(metric: Metric, points: OperatingPoints) -> np.ndarray:
    # By our own formulas for images too: scikit-learn takes one set a call, and there are 1000.
    formula = metric.of_sets or metric.value
    with np.errstate(divide="ignore", invalid="ignore"):
        values = formula(points)
    return np.where((points.positives > 0) & (points.negatives > 0), values, np.nan)


class Replicates:
    """Operating points of drawn sets of images."""

    def __init__(self, counts: np.ndarray, histograms: Histograms, whole: Streamed):
        """Sums the images' histograms.

        `counts` (B, N) are as `draw` gives them, `histograms` of each image as `Part.add` does, or
        None; `whole` are the images together, in the same order.
        """
        self._counts, self._scores, self._labels = counts, whole.scores, whole.labels
        present = [histogram for histogram in histograms if histogram is not None]
        shift, bins = common_bins([histogram for pair in present for histogram in pair])
        self._tied = _tied(whole, shift, bins)[::-1]
        self._sums: dict[str, np.ndarray] = {}
        for side, names in enumerate((whole.columns.of_normals, whole.columns.of_positives)):
            of_images = [None if pair is None else pair[side] for pair in histograms]
            sums = _sums(counts, of_images, len(names), shift, bins)
            self._sums |= dict(zip(names, sums[..., ::-1], strict=True))

    def of(self, metric: Metric):
        """Points with leading axis, some replicates at a time, in order."""
        for first in range(0, len(self._counts), _REPLICATES):
            some = slice(first, first + _REPLICATES)
            if metric.source == "images":
                yield self._image_points(self._counts[some])
            else:
                negative = GOOD if metric.weight == SHARE else NORMAL
                weights = {metric.weight: self._sums[metric.weight][some]} if metric.weight else {}
                yield OperatingPoints(
                    self._sums[POSITIVE][some], self._sums[negative][some], weights, self._tied
                )

    def _image_points(self, counts: np.ndarray) -> OperatingPoints:
        order = np.argsort(-self._scores, kind="stable")
        falling = self._scores[order]
        starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
        positive, negative = (
            np.add.reduceat((counts * chosen)[:, order], starts, axis=1)
            for chosen in (self._labels, ~self._labels)
        )
        return OperatingPoints(positive, negative)


def _sums(
    counts: np.ndarray,
    histograms: Sequence[Coarse | None],
    columns: int,
    shift: int,
    bins: np.ndarray,
) -> np.ndarray:
    """(columns, B, K) sums over images, each counted as often as drawn."""
    total = np.zeros((columns, len(counts), len(bins)))
    for first in range(0, len(histograms), _IMAGES):
        some = histograms[first : first + _IMAGES]
        dense = np.zeros((columns, len(some), len(bins)))
        for row, histogram in enumerate(some):
            if histogram is not None:
                place = np.searchsorted(bins, histogram.bins >> (shift - histogram.shift))
                for column in range(columns):
                    np.add.at(dense[column, row], place, histogram.amounts[column])
        total += counts[:, first : first + _IMAGES] @ dense
    return total


def _tied(whole: Streamed, shift: int, bins: np.ndarray) -> np.ndarray:
    """(K,) whether all scores of all images in a merged bin are one float."""
    fine, tied = whole.tied()
    place = np.searchsorted(bins, fine >> shift)
    several = np.bincount(place, minlength=len(bins)) > 1
    return (np.bincount(place[tied], minlength=len(bins)) > 0) & ~several
