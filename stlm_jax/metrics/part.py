"""What is kept of the images of one kind of defect, or of all good ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stlm_jax.metrics.bins import Bins
from stlm_jax.metrics.coarse import Coarse
from stlm_jax.metrics.destseg import RegionScores
from stlm_jax.metrics.pixel_weights import SATURATED, SHARE, Region, pixel_weights
from stlm_jax.metrics.runs import Runs, without_negative_zero

NORMAL, POSITIVE, GOOD = "normal", "positive", "good"


@dataclass(frozen=True)
class Columns:
    """What is summed over pixels."""

    weights: tuple[str, ...]  # of `pixel_weights`, summed over defective pixels
    keep_scores: bool  # whether the scores themselves are kept as well, for `destseg`

    @property
    def of_positives(self) -> tuple[str, ...]:
        """The sums of defective pixels: their number and their weights."""
        return (POSITIVE, *self.weights)

    @property
    def of_normals(self) -> tuple[str, ...]:
        """The sums of normal pixels: their number and, if asked for, that of good images.

        A good image counts 1 in all, whatever its size.
        """
        return (NORMAL, GOOD) if SHARE in self.weights else (NORMAL,)


@dataclass(frozen=True)
class Counted:
    """One image, counted.

    Attributes:
        normal: the bins of its normal pixels and their sums by name, `of_normals`.
        positive: likewise of its defective ones, `of_positives`.
        histograms: both, coarser.
        without_regions: whether it has defective pixels and came without regions that are needed.
        good_pixels: how many pixels it has, where it is good.
        scores: those of its pixels, where they are kept.
    """

    normal: tuple[Runs, dict[str, np.ndarray]]
    positive: tuple[Runs, dict[str, np.ndarray]]
    histograms: tuple[Coarse, Coarse]
    without_regions: bool
    good_pixels: int
    scores: RegionScores

    @classmethod
    def of(
        cls,
        columns: Columns,
        values: np.ndarray,
        mask: np.ndarray | None,
        good: bool,
        regions: Sequence[Region] | None,
    ) -> "Counted":
        """Counts an image, which is most of the work, and nothing else depends on it meanwhile.

        Args:
            columns: what is summed.
            values: (H, W) float32, finite.
            mask: (H, W) bool, or None where no pixel is defective.
            good: whether the image is good, not only its mask empty.
            regions: as in `pixel_weights`.
        """
        values = without_negative_zero(values)
        if mask is not None and not mask.any():
            mask = None
        if mask is None:
            normal, positive, weights = values.ravel(), values[:0, 0], {}
        else:
            normal, positive = values[~mask], values[mask]
            weights = pixel_weights(columns.weights, positive, mask, regions)
        scores = RegionScores()
        if columns.keep_scores:
            scores.add(values, np.zeros_like(values, bool) if mask is None else mask)
        normals = _normals(columns, normal, 1 / values.size if good else 0.0)
        positives = _positives(columns, positive, weights)
        return cls(
            normals,
            positives,
            (_coarse(*normals), _coarse(*positives)),
            SATURATED in weights and regions is None,
            values.size if good else 0,
            scores,
        )


class Part:
    """Sums over the pixels of some images, in memory that does not grow with their number."""

    def __init__(self, columns: Columns, good: bool = False):
        """Of no image yet; a part for good images only has no room for defective pixels."""
        self.columns = columns
        self.bins = Bins(columns.of_normals + (() if good else columns.of_positives))
        self.without_regions = self.good_pixels = 0
        self.scores = RegionScores()

    def add(self, image: Counted) -> None:
        """Adds an image that was counted by the same columns."""
        self.bins.add(*image.normal)
        if len(image.positive[0].bins):
            self.bins.add(*image.positive)
        self.without_regions += image.without_regions
        self.good_pixels += image.good_pixels
        self.scores.merge(image.scores)

    def merge(self, other: "Part") -> None:
        """Adds all images of another."""
        self.bins.merge(other.bins)
        self.scores.merge(other.scores)
        self.without_regions += other.without_regions
        self.good_pixels += other.good_pixels


def _normals(
    columns: Columns, values: np.ndarray, share: float
) -> tuple[Runs, dict[str, np.ndarray]]:
    runs = Runs.of(np.sort(values))
    amounts = {NORMAL: runs.counts.astype(np.float64)}
    if GOOD in columns.of_normals:
        amounts[GOOD] = share * amounts[NORMAL]
    return runs, amounts


def _positives(
    columns: Columns, values: np.ndarray, weights: dict[str, np.ndarray]
) -> tuple[Runs, dict[str, np.ndarray]]:
    order = np.argsort(values)
    runs = Runs.of(values[order])
    amounts = {POSITIVE: runs.counts.astype(np.float64)}
    for name in columns.weights:
        amounts[name] = (
            np.add.reduceat(weights[name][order], runs.starts) if len(values) else np.zeros(0)
        )
    return runs, amounts


def _coarse(runs: Runs, amounts: dict[str, np.ndarray]) -> Coarse:
    return Coarse.of(runs.bins, np.stack(list(amounts.values())))
