"""When a training saves, and what it never saves."""

from time import monotonic

import jax
import ml_collections
import numpy as np

from stlm_jax.data.loader import TrainLoader
from stlm_jax.runtime.agreement import Vote
from stlm_jax.training.divergence import NotFiniteError
from stlm_jax.training.state import TrainState
from stlm_jax.weights.checkpoint import Checkpoints


class SaveTimes:
    """Says after which steps to save: every so many, and after so much time without a save."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Begins to count the time; `config` is the group `checkpoint`."""
        self._steps, self._seconds = config.every_steps, 60 * config.every_minutes
        self._vote, self._last = Vote(), monotonic()

    def due(self, done: int) -> bool:
        """Whether the state after `done` steps is to be saved; the same in all processes."""
        if not self._seconds:
            return done % self._steps == 0
        late = self._vote.any(monotonic() - self._last >= self._seconds)
        return done % self._steps == 0 or late

    def saved(self) -> None:
        """Counts the time from now on."""
        self._vote, self._last = Vote(), monotonic()


def save(checkpoints: Checkpoints, step: int, state: TrainState, loader: TrainLoader) -> None:
    """Has a checkpoint written, unless a weight is not finite: the last good stays the newest."""
    weights = jax.tree.leaves(jax.device_get(state.student()))
    if not all(np.isfinite(leaf).all() for leaf in weights):
        raise NotFiniteError(f"a weight became infinite or nan at step {step}")
    checkpoints.save(step, state.student(), state.training(), loader.get_state())
