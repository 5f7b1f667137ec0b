"""The checked material of an evaluation, with what several metrics share computed once."""

from functools import cached_property

import numpy as np

from stlm_jax.metrics.errors import MetricError, Undefined
from stlm_jax.metrics.operating_points import OperatingPoints
from stlm_jax.metrics.region_overlap import region_weights


class Inputs:
    """Anomaly maps against ground truth, one category at a time.

    Attributes:
        maps: (N, H, W) float32 or float64, finite, higher is more anomalous.
        masks: (N, H, W) bool, true on defects.
        scores: (N,) float64 or None.
        labels: (N,) bool, true for a defective image.
    """

    def __init__(self, maps, masks, scores=None, labels=None):
        """Check and convert.

        Args:
            maps: (N, H, W) real numbers; any scale, nothing is rescaled.
            masks: (N, H, W) bool or {0, 1}.
            scores: (N,) real numbers, needed only by the image-level metrics.
            labels: (N,) bool or {0, 1}; by default an image is defective when its mask holds a
                pixel. Needed where a small defect may have vanished from a resized mask.

        Raises:
            MetricError: shapes disagree, a value is not finite, a mask or label is not 0 or 1, or
                an image labelled good has defective pixels.
        """
        self.maps = _finite("maps", maps)
        if self.maps.ndim != 3 or 0 in self.maps.shape:
            raise MetricError(f"maps have shape {self.maps.shape}; give (images, height, width)")
        self.masks = _binary("masks", masks)
        if self.masks.shape != self.maps.shape:
            raise MetricError(
                f"masks have shape {self.masks.shape} but maps {self.maps.shape}; "
                "resize the maps to the masks first"
            )
        has_defect = self.masks.any(axis=(1, 2))
        self.scores = None if scores is None else _finite("scores", scores).astype(np.float64)
        self.labels = has_defect if labels is None else _binary("labels", labels)
        for name, values in (("scores", self.scores), ("labels", self.labels)):
            if values is not None and values.shape != (len(self.maps),):
                raise MetricError(
                    f"{name} have shape {values.shape}; give one for each of {len(self.maps)} maps"
                )
        contradicting = np.flatnonzero(has_defect & ~self.labels)
        if len(contradicting):
            raise MetricError(
                f"labels[{contradicting[0]}] says good but its mask has defective pixels"
            )

    @cached_property
    def image_points(self) -> OperatingPoints:
        """Defective images ranked against good ones.

        Raises:
            MetricError: no scores were given.
            Undefined: all images are good, or all are defective.
        """
        if self.scores is None:
            raise MetricError("image-level metrics need `scores`, one number for each image")
        if not self.labels.any():
            raise Undefined("no image is defective")
        if self.labels.all():
            raise Undefined("no image is good")
        return OperatingPoints.of(self.scores[self.labels], self.scores[~self.labels])

    @cached_property
    def pixel_points(self) -> OperatingPoints:
        """Defective pixels, weighted by region, ranked against the normal pixels of all images.

        Raises:
            Undefined: the masks hold no defective pixel, or nothing else.
        """
        if not self.masks.any():
            raise Undefined("the masks hold no defective pixel")
        if self.masks.all():
            raise Undefined("the masks hold no normal pixel")
        return OperatingPoints.of(
            self.maps[self.masks], self.maps[~self.masks], region_weights(self.masks)
        )


def _finite(name: str, values) -> np.ndarray:
    array = _array(name, values)
    if array.dtype not in (np.float32, np.float64):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise MetricError(f"{name} are of type {array.dtype}; give real numbers") from error
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        where = ", ".join(map(str, index))
        raise MetricError(f"{name}[{where}] is {array[index]}; every value must be finite")
    return array


def _binary(name: str, values) -> np.ndarray:
    array = _array(name, values)
    if array.dtype == np.bool_:
        return array
    result = array == 1
    other = ~result & (array != 0)
    if other.any():
        index = np.unravel_index(int(other.argmax()), array.shape)
        where = ", ".join(str(int(i)) for i in index)
        raise MetricError(f"{name}[{where}] is {array[index]}; give 0 or 1")
    return result


def _array(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise MetricError(f"{name} differ in shape; bring them to one size first") from error
