"""Anomaly maps and scores of many images by a trained model, batch by batch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import ml_collections
import numpy as np

from stlm_jax.inference_step import make_predict_fn
from stlm_jax.models.build import build_stlm
from stlm_jax.train_state import TrainState, abstract_train_state
from stlm_jax.trained import CHECKPOINTS, restore
from stlm_jax.weights import finished_student


def state_template(config: ml_collections.ConfigDict) -> TrainState:
    """The train state of a configuration as `jax.ShapeDtypeStruct` leaves."""
    return abstract_train_state(config, build_stlm(config))


class Predictor:
    """One compiled prediction for all categories of a run."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Build the model of `config`; weights come with `load`."""
        self._config, self._model = config, build_stlm(config)
        self._template = abstract_train_state(config, self._model)
        self._batch_size = config.evaluate.batch_size
        self._size = config.image_size
        self._predict = jax.jit(make_predict_fn(config, self._model), static_argnums=2)
        self._variables = None

    def load(self, folder: Path) -> int:
        """Take the weights of the newest checkpoint of a category's `folder`; returns its step.

        Where nothing was trained yet, an STLM in `config.student.checkpoint` is used as it is, and
        the step is 0.

        Raises:
            UserError: there is no checkpoint, or it is of another model.
        """
        finished = None
        if not (folder / CHECKPOINTS).is_dir():
            finished = finished_student(self._config, self._model)
        if finished is None:
            step, variables = restore(folder, self._template)
        else:
            step, variables = 0, finished
        self._variables = jax.device_put(variables)
        return step

    def __call__(
        self,
        count: int,
        read: Callable[[int, int], np.ndarray],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Predict `count` images, a batch at a time.

        Args:
            count: number of images.
            read: `read(first, last)` gives images `first` to `last - 1` as uint8 (n, S, S, 3),
                S = `config.image_size`.
            progress: called with the number of images done.

        Yields:
            `map` and `map_without_fa` (n, S, S), `score` and `score_without_fa` (n,), float32.
        """
        for first in range(0, count, self._batch_size):
            images = read(first, min(first + self._batch_size, count))
            padding = self._batch_size - len(images)  # one compiled shape, the last batch too
            padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)), mode="edge")
            result = self._predict(self._variables, padded, (self._size, self._size))
            yield {name: value[: len(images)] for name, value in jax.device_get(result).items()}
            progress(first + len(images))
