"""What material must be before a metric is computed from it, and where a metric has no value."""

import numpy as np

from stlm_jax.runtime.errors import UserError


class MetricError(UserError):
    """Maps, masks, scores or labels that no metric can be computed from."""


class Undefined(Exception):
    """A metric has no value on this set, for the reason in the text."""


def finite(name: str, values) -> np.ndarray:
    """The values as float32 or float64, all finite."""
    array = _array(name, values)
    if array.dtype not in (np.float32, np.float64):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise MetricError(f"{name} are of type {array.dtype}; give real numbers") from error
    valid = np.isfinite(array)
    if not valid.all():
        place, value = _first(name, array, ~valid)
        raise MetricError(f"{place} is {value}; every value must be finite")
    return array


def binary(name: str, values) -> np.ndarray:
    """The values, each 0 or 1, as bool."""
    array = _array(name, values)
    if array.dtype == np.bool_:
        return array
    result = array == 1
    other = ~result & (array != 0)
    if other.any():
        place, value = _first(name, array, other)
        raise MetricError(f"{place} is {value}; give 0 or 1")
    return result


def require_both_labels(labels: np.ndarray) -> None:
    """Images can be ranked: some are good, some defective."""
    if not labels.any():
        raise Undefined("no image is defective")
    if labels.all():
        raise Undefined("no image is good")


def require_both_pixels(defective: bool, normal: bool) -> None:
    """Pixels can be ranked: the masks hold both kinds."""
    if not defective:
        raise Undefined("the masks hold no defective pixel")
    if not normal:
        raise Undefined("the masks hold no normal pixel")


def require_good_images(defective: bool, good: bool) -> None:
    """Defective pixels can be ranked against good images: there are both."""
    if not defective:
        raise Undefined("the masks hold no defective pixel")
    if not good:
        raise Undefined("no image is good, so there is no false positive rate of good images")


def require_regions(images_without: int, has_pixels: bool) -> None:
    """Regions can saturate: all defective images came with theirs."""
    if images_without:
        raise Undefined(
            f"{images_without} defective images came without regions and their saturation"
        )
    if not has_pixels:
        raise Undefined("the masks hold no region")


def _array(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise MetricError(f"{name} differ in shape; bring them to one size first") from error


def _first(name: str, array: np.ndarray, wrong: np.ndarray) -> tuple[str, np.generic]:
    """Where the first wrong value lies, in words, and the value."""
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{name}[{', '.join(map(str, index))}]" if index else name, array[index]
