"""What is known of the test images of a category that a model has seen so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import ml_collections
import numpy as np

from stlm_jax.data.images import resize_map, resize_mask
from stlm_jax.data.reader import View
from stlm_jax.data.records import Record
from stlm_jax.data.truth import Truth
from stlm_jax.evaluation.error_rates import ErrorRates
from stlm_jax.evaluation.results import ImageResult, most_wrong_first
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.metrics import Accumulator, CountedImage, MetricError
from stlm_jax.models.components import Components
from stlm_jax.runtime.text import printable
from stlm_jax.weights.description import Calibration


@dataclass(frozen=True)
class TestImage:
    """A test image as it is read."""

    __test__: ClassVar = False  # pytest would take it for a class of tests

    place: int  # in the split
    record: Record
    view: View  # what the network sees
    picture: np.ndarray  # (h, w, 3) uint8, small, in its own proportions
    truth: Truth
    shape: tuple[int, int]  # of the truth: the resolution that metrics are taken at


class Looked(NamedTuple):
    """What `Measurements.look` found, for its `fold`."""

    place: int  # in the split
    with_fa: CountedImage
    without_fa: CountedImage | None
    rates: ErrorRates | None
    result: ImageResult
    map: np.ndarray | None  # (S, S) float32, where it is kept


class Measurements:
    """What is known of the images measured so far; bounded but for a score an image.

    Attributes:
        with_fa: metrics of the map with the FA module.
        without_fa: metrics of the map without; none where a model has but one map.
        rates: of wrong verdicts; None without calibration.
        images: {place in the split: result}; those that are not among the most wrong, which reports
            show, have lost their pictures, which are (0, 0).
        maps: {place in the split: (S, S) float32} of the images that panels are made of.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        calibration: Calibration | None,
        panels: Sequence[int] = (),
    ):
        """Begins with no image; `panels` are places in the split whose maps are to be kept."""
        self.with_fa = Accumulator(config.evaluate.metrics)
        comparable = Components.of(config.student).comparable
        self.without_fa = Accumulator(config.evaluate.metrics if comparable else ())
        self.rates = ErrorRates(calibration) if calibration else None
        self.images: dict[int, ImageResult] = {}
        self.maps: dict[int, np.ndarray] = {}
        self._calibration, self._panels = calibration, frozenset(panels)
        self._shown = max(config.report.gallery, config.evaluate.panels)
        self._square = (config.image_size,) * 2

    def look(self, image: TestImage, maps: ImageMaps) -> Looked:
        """The work on one image; nothing is changed, so threads may look at several at once.

        A MetricError names an image whose maps are not finite.
        """
        record, (mask, regions) = image.record, image.truth
        defect = printable(record.defect)
        label, score = bool(record.label), float(maps.score)
        of_map = resize_map(maps.map, image.shape)
        truth = label, defect, regions, image.place
        without_fa, score_without_fa, rates = None, math.nan, None
        try:
            with_fa = self.with_fa.count(of_map, mask, score, *truth)
            if maps.map_without_fa is not None and maps.score_without_fa is not None:
                without, score_without_fa = maps.map_without_fa, float(maps.score_without_fa)
                without = resize_map(without, image.shape)
                without_fa = self.without_fa.count(without, mask, score_without_fa, *truth)
            if self._calibration:
                rates = ErrorRates(self._calibration)
                rates.add(of_map, mask, score, label)
        except MetricError as error:
            raise MetricError(f"{record.image}: {error}") from error
        small = image.picture.shape[:2]
        result = ImageResult(
            name=f"{defect}/{printable(record.image.stem)}",
            defect=defect,
            label=label,
            score=score,
            score_without_fa=score_without_fa,
            picture=image.picture,
            mask=None if mask is None else _visible(mask, small),
            map=resize_map(maps.map, small),
        )
        kept = resize_map(maps.map, self._square) if image.place in self._panels else None
        return Looked(image.place, with_fa, without_fa, rates, result, kept)

    def fold(self, looked: Looked) -> None:
        """Takes in what was found; sums depend on the order, in their rounding."""
        self.with_fa.fold(looked.with_fa)
        if looked.without_fa:
            self.without_fa.fold(looked.without_fa)
        if self.rates and looked.rates:
            self.rates.merge(looked.rates)
        self.images[looked.place] = looked.result
        if looked.map is not None:
            self.maps[looked.place] = looked.map
        # Only once there are twice as many pictures as are shown: sorting at each image is slow.
        self._drop_pictures(above=2 * self._shown)

    def merge(self, other: Self) -> None:
        """Adds what another process has measured of the same split."""
        self.with_fa.merge(other.with_fa)
        self.without_fa.merge(other.without_fa)
        if self.rates and other.rates:
            self.rates.merge(other.rates)
        self.images |= other.images
        self.maps |= other.maps
        self._drop_pictures(above=self._shown)

    def in_order(self) -> list[ImageResult]:
        """The images, in the order of the split."""
        self._drop_pictures(above=self._shown)
        return [self.images[place] for place in sorted(self.images)]

    def _drop_pictures(self, above: int) -> None:
        """Keeps pictures of the most wrong images only, where more than `above` have them."""
        places = {id(image): place for place, image in self.images.items() if image.picture.size}
        if len(places) <= above:
            return
        images = [self.images[place] for place in places.values()]
        nothing = np.empty((0, 0), np.float32)
        for image in most_wrong_first(images, self._calibration)[self._shown :]:
            self.images[places[id(image)]] = replace(
                image,
                picture=np.empty((0, 0, 3), np.uint8),
                mask=None if image.mask is None else nothing > 0,
                map=nothing,
            )


def _visible(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask in another size for the eye: what would vanish stays visible."""
    small = resize_mask(mask, size)
    return small if small.any() else resize_map(mask.astype(np.float32), size) > 0
