"""Metrics of images that come one by one, in memory that does not grow with their pixels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stlm_jax.metrics import checks
from stlm_jax.metrics.bootstrap import Replicates, draw, intervals, replicated
from stlm_jax.metrics.checks import MetricError
from stlm_jax.metrics.coarse import Coarse
from stlm_jax.metrics.curves import Curve, curves_of
from stlm_jax.metrics.part import Columns, Counted, Part
from stlm_jax.metrics.pixel_weights import REGION, Region
from stlm_jax.metrics.registry import DEFAULT_NAMES, resolve, values_of, weights_of
from stlm_jax.metrics.streamed import Streamed


@dataclass(frozen=True)
class Result:
    """Metrics of the images of a category, as fractions of 1.

    Attributes:
        values: by metric, nan where it is undefined.
        reasons: by metric, why it is undefined.
        intervals: by metric, the 95 % interval over images; see `bootstrap.intervals`.
        by_defect: by kind of defect and metric: the images of that kind against all good ones.
        curves: `pixel_roc`, `pixel_pr`, `pro`, `image_roc`, `image_pr`, those that are defined.
        error_bounds: by metric that is defined, how far binning may have moved the value.
        replicates: by metric (B,) float64, its values on the drawn sets of images, of which the
            interval is made; nan where undefined. See `bootstrap.replicated`.
    """

    values: dict[str, float]
    reasons: dict[str, str]
    intervals: dict[str, tuple[float, float]]
    by_defect: dict[str, dict[str, float]]
    curves: dict[str, Curve]
    error_bounds: dict[str, float]
    replicates: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class _Image:
    place: int | None
    score: float
    label: bool
    defect: str
    histograms: tuple[Coarse, Coarse] | None

    def order(self) -> tuple:
        """A key that sorts images the same in whatever order they came.

        By place where it is known: what a model says of an image then has no influence.
        """
        if self.place is not None:
            return 0, self.place
        digests = [histogram.digest() for histogram in self.histograms or ()]
        return 1, self.label, self.defect, self.score, digests


class CountedImage(NamedTuple):
    """What `Accumulator.count` found, for its `fold`."""

    image: _Image
    pixels: Counted | None  # None where it is not known which are defective


class Accumulator:
    """Folds images in as they come; gives the metrics of `metrics.evaluate` and more.

    Maps are counted as float32 in the bins of `runs`; `Result.error_bounds` tells what that may
    have changed. The numbers do not depend on the order of images nor on how they are split among
    accumulators that are merged, but for the rounding of sums. It can be pickled. Threads may
    `count` images at once; folded in one order they give the same to the last bit.

    Only `aupro_destseg` needs the scores themselves; with it, memory grows with the images.
    """

    def __init__(
        self, names: Iterable[str] = DEFAULT_NAMES, bootstrap: int = 1000, seed: int = 0
    ) -> None:
        """Of no image yet.

        Args:
            names: as for `metrics.evaluate`.
            bootstrap: replicates for the intervals; 0 for none.
            seed: of the replicates.
        """
        self._names = tuple(names)
        self._bootstrap, self._seed = bootstrap, seed
        metrics = self._metrics()
        weights = tuple(sorted(weights_of(metrics) | {REGION}))  # the curves need regions
        keep_scores = any(metric.source == "region_scores" for metric in metrics.values())
        self._columns = Columns(weights, keep_scores)
        self._images: list[_Image] = []
        self._good = Part(self._columns, good=True)
        self._defective: dict[str, Part] = {}

    def add(
        self,
        anomaly_map: ArrayLike,
        mask: ArrayLike | None,
        score: float,
        label: bool,
        defect: str,
        regions: Sequence[Region] | None = None,
        place: int | None = None,
    ) -> None:
        """Folds one image in, or refuses it whole; arguments are those of `count`."""
        self.fold(self.count(anomaly_map, mask, score, label, defect, regions, place))

    def count(
        self,
        anomaly_map: ArrayLike,
        mask: ArrayLike | None,
        score: float,
        label: bool,
        defect: str,
        regions: Sequence[Region] | None = None,
        place: int | None = None,
    ) -> CountedImage:
        """Counts an image, or refuses it; nothing is changed, so threads may count at once.

        It is most of the work. Sizes may differ from image to image.

        Args:
            anomaly_map: (H, W) real numbers, counted as float32; higher is more anomalous.
            mask: (H, W) bool or {0, 1}, true on defects. None for a defective image whose ground
                truth is unknown, which then counts in image metrics only, or for a good one.
            score: of the image.
            label: whether the image is defective; its mask may be empty all the same.
            defect: the kind of defect; of a good image it does not matter.
            regions: for `spro`, (mask (H, W) bool, pixels that saturate it) of each annotated
                anomaly, as in `pixel_weights`.
            place: of the image in its split, unlike that of any other. Where all images have one,
                replicate b counts the same images in every accumulator of the split.
        """
        values = _map(anomaly_map)
        known = None if mask is None else checks.binary("mask", mask)
        if known is not None and known.shape != values.shape:
            raise MetricError(f"mask has shape {known.shape} but anomaly_map {values.shape}")
        image_score = checks.finite("score", score)
        if image_score.ndim:
            raise MetricError(f"score has shape {image_score.shape}; give one number")
        defective = bool(checks.binary("label", label))
        if not defective and known is not None and known.any():
            raise MetricError("label says good but the mask has defective pixels")
        if regions is not None and known is None:
            raise MetricError("regions come without a mask")
        pixels = None
        if known is not None or not defective:
            pixels = Counted.of(self._columns, values, known, not defective, regions)
        histograms = None if pixels is None else pixels.histograms
        image = _Image(place, float(image_score), defective, str(defect), histograms)
        return CountedImage(image, pixels)

    def fold(self, counted: CountedImage) -> None:
        """Folds in an image that was counted; sums depend on the order, in their rounding."""
        image, pixels = counted
        if pixels is not None:
            (self._part(image.defect) if image.label else self._good).add(pixels)
        self._images.append(image)

    def merge(self, other: "Accumulator") -> None:
        """Folds in all images of another, of the same settings; it is left as it is."""
        ours, theirs = ((part._names, part._bootstrap, part._seed) for part in (self, other))
        if theirs != ours:
            raise MetricError(
                f"accumulators of other settings cannot be merged: {theirs} and {ours}"
            )
        self._images += other._images
        self._good.merge(other._good)
        for defect, part in other._defective.items():
            self._part(defect).merge(part)

    def result(self) -> Result:
        """The metrics of all images so far; more may be added afterwards."""
        metrics = self._metrics()
        images = sorted(self._images, key=_Image.order)
        whole = self._streamed(images, [self._good, *self._defective.values()])
        values, reasons = values_of(metrics, whole)
        with ThreadPoolExecutor(2) as pool:  # neither of the two has a part in what follows
            curves = pool.submit(curves_of, whole)
            by_defect = pool.submit(self._by_defect, images, values)
            drawn = {}
            if self._bootstrap and images:
                counts = draw(whole.labels, self._bootstrap, self._seed)
                replicates = Replicates(counts, [image.histograms for image in images], whole)
                drawn = replicated(metrics, values, replicates)
            bounds = {
                name: metric.bound(getattr(whole, metric.source))
                for name, metric in metrics.items()
                if name not in reasons
            }
        return Result(
            values, reasons, intervals(drawn), by_defect.result(), curves.result(), bounds, drawn
        )

    def _by_defect(
        self, images: list[_Image], values: dict[str, float]
    ) -> dict[str, dict[str, float]]:
        """The metrics of each kind of defect, given the `values` of all together."""
        defects = sorted({image.defect for image in images if image.label})
        if len(defects) == 1:
            return {defects[0]: dict(values)}
        result = {}
        for defect in defects:
            chosen = [image for image in images if not image.label or image.defect == defect]
            streamed = self._streamed(chosen, [self._good, self._part(defect)])
            result[defect] = values_of(self._metrics(), streamed).values
        return result

    def _streamed(self, images: list[_Image], parts: list[Part]) -> Streamed:
        scores = np.array([image.score for image in images], np.float64)
        labels = np.array([image.label for image in images], bool)
        return Streamed(self._columns, parts, scores, labels)

    def _part(self, defect: str) -> Part:
        return self._defective.setdefault(defect, Part(self._columns))

    def _metrics(self):
        return {name: resolve(name) for name in self._names}


def _map(values) -> np.ndarray:
    array = checks.finite("anomaly_map", values)
    if array.ndim != 2 or not array.size:
        raise MetricError(f"anomaly_map has shape {array.shape}; give (height, width)")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            array = checks.finite("anomaly_map as float32", array.astype(np.float32))
    return array
