"""The checked material of an exact evaluation, with what several metrics share computed once."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from stlm_jax.metrics import checks
from stlm_jax.metrics.checks import MetricError
from stlm_jax.metrics.destseg import RegionScores
from stlm_jax.metrics.image_level import LabelledScores
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.pixel_weights import REGION, SHARE, Region, pixel_weights


class Inputs:
    """Anomaly maps against ground truth, one category at a time, as `registry.evaluate` takes them.

    What a metric is computed from is `Undefined` where these images do not have it.
    """

    def __init__(
        self,
        maps,
        masks,
        scores=None,
        labels=None,
        regions: Sequence[Sequence[Region] | None] | None = None,
        weights: Collection[str] = (REGION,),
    ):
        """Checks and converts; `weights` are those of `pixel_weights` for `pixel_points`."""
        self.maps = checks.finite("maps", maps)
        if self.maps.ndim != 3 or 0 in self.maps.shape:
            raise MetricError(f"maps have shape {self.maps.shape}; give (images, height, width)")
        self.masks = checks.binary("masks", masks)
        if self.masks.shape != self.maps.shape:
            raise MetricError(
                f"masks have shape {self.masks.shape} but maps {self.maps.shape}; "
                "resize the maps to the masks first"
            )
        has_defect = np.asarray(self.masks.any(axis=(1, 2)))
        self.scores = None if scores is None else checks.finite("scores", scores).astype(np.float64)
        self.labels = has_defect if labels is None else checks.binary("labels", labels)
        self.regions = regions
        self._weights = weights
        for name, values in (("scores", self.scores), ("labels", self.labels)):
            if values is not None and values.shape != (len(self.maps),):
                raise MetricError(
                    f"{name} have shape {values.shape}; give one for each of {len(self.maps)} maps"
                )
        if regions is not None and len(regions) != len(self.maps):
            raise MetricError(
                f"regions are of {len(regions)} images; give them for each of {len(self.maps)} maps"
            )
        contradicting = np.flatnonzero(has_defect & ~self.labels)
        if len(contradicting):
            raise MetricError(
                f"labels[{contradicting[0]}] says good but its mask has defective pixels"
            )

    @property
    def images(self) -> LabelledScores:
        """The images' scores; there are some of both classes."""
        if self.scores is None:
            raise MetricError("image-level metrics need `scores`, one number for each image")
        checks.require_both_labels(self.labels)
        return LabelledScores(self.labels, self.scores)

    @cached_property
    def pixel_points(self) -> OperatingPoints:
        """Defective pixels, weighted, ranked against the normal pixels of all images."""
        self._require_both_pixels()
        return OperatingPoints.of(
            self.maps[self.masks],
            self.maps[~self.masks],
            self._weights_of_pixels(self._weights),
        )

    @cached_property
    def saturated_points(self) -> OperatingPoints:
        """`pixel_points` where every defective image came with its regions."""
        of_images = self.regions or [None] * len(self.masks)
        without = sum(
            regions is None and mask.any()
            for regions, mask in zip(of_images, self.masks, strict=True)
        )
        has_pixels = any(region.any() for regions in of_images for region, _ in regions or ())
        checks.require_regions(without, has_pixels)
        return self.pixel_points

    @cached_property
    def share_points(self) -> OperatingPoints:
        """Defective pixels ranked against the pixels of good images only."""
        checks.require_good_images(bool(self.masks.any()), not self.labels.all())
        good = self.maps[~self.labels].ravel()
        weights = self._weights_of_pixels({SHARE})
        points = OperatingPoints.of(self.maps[self.masks], good, weights)
        return replace(points, resolution=1 / len(good))

    @cached_property
    def region_scores(self) -> RegionScores:
        """The scores of normal pixels and of each region."""
        self._require_both_pixels()
        scores = RegionScores()
        for values, mask in zip(self.maps, self.masks, strict=True):
            scores.add(values, mask)
        return scores

    def _require_both_pixels(self) -> None:
        checks.require_both_pixels(bool(self.masks.any()), not self.masks.all())

    def _weights_of_pixels(self, names: Collection[str]) -> dict[str, np.ndarray]:
        parts = [
            pixel_weights(names, values[mask], mask, self.regions[index] if self.regions else None)
            for index, (values, mask) in enumerate(zip(self.maps, self.masks, strict=True))
            if mask.any()
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}
