"""What every array must be before a metric is computed from it."""

import numpy as np

from stlm_jax.metrics.errors import MetricError


def finite(name: str, values) -> np.ndarray:
    """The values as float32 or float64.

    Raises:
        MetricError: they are not real numbers, differ in shape, or one is not finite.
    """
    array = _array(name, values)
    if array.dtype not in (np.float32, np.float64):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise MetricError(f"{name} are of type {array.dtype}; give real numbers") from error
    valid = np.isfinite(array)
    if not valid.all():
        index = tuple(int(i) for i in np.argwhere(~valid)[0])
        raise MetricError(f"{_place(name, index)} is {array[index]}; every value must be finite")
    return array


def binary(name: str, values) -> np.ndarray:
    """The values as bool.

    Raises:
        MetricError: they differ in shape, or one is neither 0 nor 1.
    """
    array = _array(name, values)
    if array.dtype == np.bool_:
        return array
    result = array == 1
    other = ~result & (array != 0)
    if other.any():
        index = tuple(int(i) for i in np.argwhere(other)[0])
        raise MetricError(f"{_place(name, index)} is {array[index]}; give 0 or 1")
    return result


def _place(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def _array(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise MetricError(f"{name} differ in shape; bring them to one size first") from error
