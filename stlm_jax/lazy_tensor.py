"""A tensor of a file that is read when it is needed."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """Shape known, content read by `np.asarray(tensor, dtype)`, each time anew.

    Attributes:
      shape: of the content.
      read: gives the content; a NumPy array, which may be a view of a memory-mapped file.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """NumPy's protocol."""
        return np.array(self.read(), dtype, copy=copy)
