"""Image scores on the host, in NumPy."""

from collections.abc import Sequence

import numpy as np


def mean_of_largest(values: np.ndarray, top_k: int) -> np.ndarray:
    """`predict_fn.image_score` of one map of any shape."""
    count = min(top_k, values.size)
    return np.partition(values, -count, axis=None)[-count:].mean()


def largest(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The `count` largest values of one-dimensional arrays, or all of fewer, in any order."""
    values = np.concatenate(parts)
    return np.partition(values, -count)[-count:] if count < values.size else values
