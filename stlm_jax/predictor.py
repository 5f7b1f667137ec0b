"""Anomaly maps and scores of many images by a trained model, batch by batch."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from stlm_jax.compilation import jit
from stlm_jax.cost import Cost, count_parameters, flops_of, median_ms
from stlm_jax.data.geometry import Box
from stlm_jax.data.reading import View
from stlm_jax.inference_step import make_predict_fn, mean_of_largest
from stlm_jax.models.build import build_stlm
from stlm_jax.train_state import TrainState, abstract_train_state
from stlm_jax.trained import CHECKPOINTS, Variables, restore
from stlm_jax.weights import finished_student


def state_template(config: ml_collections.ConfigDict) -> TrainState:
    """The train state of a configuration as `jax.ShapeDtypeStruct` leaves."""
    return abstract_train_state(config, build_stlm(config))


class Found(NamedTuple):
    """What a model says of an image.

    Attributes:
        map: (h, w) float32, of the image as it lies in the square, without padding.
        map_without_fa: likewise.
        score: mean of the largest pixels of `map`.
        score_without_fa: likewise of `map_without_fa`.
    """

    map: np.ndarray
    map_without_fa: np.ndarray
    score: np.ndarray
    score_without_fa: np.ndarray


class Predictor:
    """One compiled prediction for all categories of a run."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Build the model of `config`; weights come with `load`."""
        self._config, self._model = config, build_stlm(config)
        self._template = abstract_train_state(config, self._model)
        self._batch_size = config.evaluate.batch_size
        self._size, self._top_k = config.image_size, config.evaluate.score_top_k
        self._predict = jit(make_predict_fn(config, self._model), static_argnums=2)
        self._variables: Variables = {}

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

    def __call__(self, views: Iterable[View]) -> Iterator[Found]:
        """Predict images, in order, a batch at a time.

        While the caller works on what was found in a batch, the device computes the next one.

        Args:
            views: as `stlm_jax.data.reading` gives them, of side `config.image_size`.
        """
        following = iter(views)
        begun: tuple[list[View], dict[str, jax.Array]] | None = None
        while batch := list(itertools.islice(following, self._batch_size)):
            images = np.stack([view.pixels for view in batch])
            padding = self._batch_size - len(images)  # one compiled shape, the last batch too
            padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)), mode="edge")
            started = batch, self._predict(self._variables, padded, (self._size, self._size))
            if begun:
                yield from self._found(*begun)
            begun = started
        if begun:
            yield from self._found(*begun)

    def cost(self, runs: int) -> Cost:
        """What the prediction of an image costs, by `runs` timed batches; nothing is compiled."""
        shape = (self._batch_size, self._size, self._size, 3)
        images = jax.device_put(np.zeros(shape, np.uint8))
        arguments = self._variables, images, (self._size, self._size)
        compiled = self._predict.lower(*arguments).compile()  # JAX keeps it from the first batch
        return Cost(
            parameters=count_parameters(self._variables),
            flops=flops_of(compiled) / self._batch_size,
            latency_ms=median_ms(lambda: self._predict(*arguments), runs) / self._batch_size,
            batch_size=self._batch_size,
            device=jax.devices()[0].device_kind,
        )

    def _found(self, batch: list[View], result: dict[str, jax.Array]) -> Iterator[Found]:
        host = jax.device_get(result)
        for index, view in enumerate(batch):
            found = Found(*(host[name][index] for name in Found._fields))
            yield self._of_content(found, view.box)

    def _of_content(self, found: Found, box: Box) -> Found:
        """What was found in the image itself, where there is padding around it."""
        if found.map.shape == box.shape:
            return found
        maps = box.of(found.map), box.of(found.map_without_fa)
        return Found(*maps, *(mean_of_largest(values, self._top_k) for values in maps))
