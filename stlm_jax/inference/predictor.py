"""The models of a run, category by category, through one compiled program."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import ml_collections
import numpy as np

from stlm_jax.data.reader import View
from stlm_jax.inference.cost import Cost, count_parameters, flops_of, median_ms
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.inference.predict_views import ImageMaps, predict_views
from stlm_jax.inference.trained_model import restore_student
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.weights.load import Variables, read_student
from stlm_jax.workdir import newest_step


class Predictor:
    """One compiled prediction for all categories of a run."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the model of `config`; weights come with `load`."""
        self._config, self._model = config, build_stlm(config)
        self._batch_size = config.evaluate.batch_size
        self._size, self._top_k = config.image_size, config.evaluate.score_top_k
        self._predict = jit(make_predict_fn(config, self._model), static_argnums=2)
        self._variables: Variables = {}
        self._compiled = False

    def load(self, folder: Path) -> int:
        """Takes the weights of the newest checkpoint of a category's `folder`; returns its step.

        Where nothing was trained yet, an STLM in `config.student.checkpoint` is used as it is, and
        the step is 0.
        """
        untrained = None
        if newest_step(folder) is None:
            untrained = read_student(self._config.student.checkpoint, self._model)
        if untrained is not None and untrained.metadata["kind"] == "stlm":
            step, variables = 0, untrained.variables
        else:
            step, variables = restore_student(folder, self._model)
        self._variables = jax.device_put(variables)
        return step

    def __call__(self, views: Iterable[View]) -> Iterator[ImageMaps]:
        """Predicts images of side `config.image_size`, in order, a batch at a time."""
        return predict_views(self._batch, views, self._batch_size, self._top_k)

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

    def _batch(self, pixels: np.ndarray) -> dict[str, jax.Array]:
        arguments = self._variables, pixels, (self._size, self._size)
        if not self._compiled:
            compile_apart(self._predict, *arguments)
            self._compiled = True
        return self._predict(*arguments)
