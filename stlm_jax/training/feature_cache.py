"""The teacher's features of clean images, kept in host memory where nothing rotates.

There an image is the same in every epoch. Features are kept in bfloat16, and rounded to it in the
step that computes them: a training gives the same numbers however many of them there is room for,
and wherever it was stopped and gone on with.
"""

from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import ml_dtypes
import numpy as np

from stlm_jax.data.cache import GIB
from stlm_jax.runtime.progress import note
from stlm_jax.training.placement import Rows
from stlm_jax.training.rotation import POLICIES, policy_of
from stlm_jax.training.teacher import TARGET_DTYPE

Shapes = Sequence[jax.ShapeDtypeStruct]


def rotates(config: ml_collections.ConfigDict, category: str) -> bool:
    """Whether the policy of a category turns its images."""
    return any(POLICIES[policy_of(config.data.rotation, category)])


def abstract_part(levels: Shapes) -> dict[str, Any]:
    """The shapes of what `FeatureCache.of` gives for a batch with such levels (N, h, w, C)."""
    return {
        "levels": tuple(jax.ShapeDtypeStruct(x.shape, TARGET_DTYPE) for x in levels),
        "known": jax.ShapeDtypeStruct(levels[0].shape[:1], np.bool_),
        "rounded": jax.ShapeDtypeStruct((), np.bool_),
    }


class FeatureCache:
    """The clean features of one category's images, by their numbers, as far as a budget goes.

    Attributes:
        room: how many images' features can be kept.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        category: str,
        images: int,
        levels: Shapes,
    ):
        """Features of so many images; none is known yet.

        Args:
            config: of the run.
            category: whose they are; where it rotates none is kept, or rounded.
            images: how many there are.
            levels: a batch's, (N, h, w, C).
        """
        size = sum(int(np.prod(x.shape[1:])) for x in levels) * ml_dtypes.bfloat16(0).itemsize
        budget, still = config.teacher.cache_gib, not rotates(config, category)
        self.room = int(min(images, budget * GIB / size)) if still else 0
        if still and self.room < images:
            note(
                f"{category}: config.teacher.cache_gib={budget:g} holds the clean features of "
                f"{self.room} of {images} images, those of the others are computed in every epoch"
            )
        self._kept = tuple(np.empty((self.room, *x.shape[1:]), TARGET_DTYPE) for x in levels)
        self._known = np.zeros(images, bool)
        self._waiting: tuple[np.ndarray, tuple[Rows, ...]] | None = None
        self._nothing = {
            "levels": tuple(np.zeros(x.shape, TARGET_DTYPE) for x in levels),
            "known": np.zeros(levels[0].shape[:1], bool),
            "rounded": np.bool_(still),
        }

    def of(self, index: np.ndarray) -> dict[str, Any]:
        """What is known of the images of a batch, for `live_targets`; host arrays."""
        known = self._known[index]
        if not known.any():
            return self._nothing
        levels = []
        for kept in self._kept:
            # An array of its own: the device may read it in place, later.
            level = np.zeros((len(index), *kept.shape[1:]), kept.dtype)
            level[known] = kept[index[known]]
            levels.append(level)
        return {**self._nothing, "levels": tuple(levels), "known": known}

    def take(self, index: np.ndarray, produced: tuple[Rows, ...]) -> None:
        """Takes what a step has `produced` for the images of its batch, or will have.

        What is missing is kept when the next step's is taken: reading it waits for the step, and
        the device works on the next one meanwhile.
        """
        if self._waiting is not None:
            there, levels = self._waiting
            for kept, level in zip(self._kept, map(Rows.read, levels), strict=True):
                kept[there[there < self.room]] = level[there < self.room]
            self._known[there[there < self.room]] = True
        missing = ~self._known[index] & (index < self.room)
        self._waiting = (index, produced) if missing.any() else None
