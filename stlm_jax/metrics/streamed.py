"""What metrics are computed from, of accumulated images, by the same names as of exact `Inputs`."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np

from stlm_jax.metrics import checks
from stlm_jax.metrics.destseg import RegionScores
from stlm_jax.metrics.image_level import LabelledScores
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.part import GOOD, NORMAL, POSITIVE, Columns, Part
from stlm_jax.metrics.pixel_weights import SATURATED, SHARE


class Streamed:
    """The union of some parts, and the scores of their images."""

    def __init__(
        self, columns: Columns, parts: Iterable[Part], scores: np.ndarray, labels: np.ndarray
    ):
        """Merges `parts` of these `columns`; `scores` (N,) float64, `labels` (N,) bool."""
        self.columns, self.scores, self.labels = columns, scores, labels
        whole = Part(columns)
        for part in parts:
            whole.merge(part)
        self._regions, self._without_regions = whole.scores, whole.without_regions
        self._good_pixels = whole.good_pixels
        self._bins, self._sums, self._tied = whole.bins.rows()

    @property
    def images(self) -> LabelledScores:
        """See `Inputs`."""
        checks.require_both_labels(self.labels)
        return LabelledScores(self.labels, self.scores)

    @property
    def image_points(self) -> OperatingPoints:
        """Defective images ranked against good ones, for curves."""
        labels, scores = self.images
        return OperatingPoints.of(scores[labels], scores[~labels])

    @cached_property
    def pixel_points(self) -> OperatingPoints:
        """See `Inputs`."""
        checks.require_both_pixels(self._has(POSITIVE), self._has(NORMAL))
        return self._points(NORMAL, self.columns.weights)

    @property
    def saturated_points(self) -> OperatingPoints:
        """See `Inputs`."""
        checks.require_regions(self._without_regions, self._has(SATURATED))
        return self.pixel_points

    @cached_property
    def share_points(self) -> OperatingPoints:
        """See `Inputs`; a good image counts 1 whatever its size."""
        checks.require_good_images(self._has(POSITIVE), self._has(GOOD))
        points = self._points(GOOD, (SHARE,))
        return replace(points, resolution=1 / self._good_pixels)

    @property
    def region_scores(self) -> RegionScores:
        """See `Inputs`."""
        checks.require_both_pixels(self._has(POSITIVE), self._has(NORMAL))
        return self._regions

    def tied(self) -> tuple[np.ndarray, np.ndarray]:
        """The bins (K,) in use, rising, and (K,) whether all scores in each are one float."""
        return self._bins, self._tied

    def _has(self, column: str) -> bool:
        return bool(self._sums[column].any())

    def _points(self, negative: str, weights: tuple[str, ...]) -> OperatingPoints:
        falling = {name: values[::-1] for name, values in self._sums.items()}
        return OperatingPoints(
            falling[POSITIVE], falling[negative], {w: falling[w] for w in weights}, self._tied[::-1]
        )
