"""The models of a run, category by category, through one compiled program."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from stlm_jax.data.reader import View
from stlm_jax.inference.cost import Cost, count_parameters, flops_of, median_ms
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.inference.predict_views import ImageMaps, predict_views
from stlm_jax.inference.trained_model import restore_student
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.runtime.sharding import DATA
from stlm_jax.weights.load import Variables, read_student
from stlm_jax.workdir import newest_step


class Predictor:
    """One compiled prediction for all categories of a run."""

    def __init__(
        self, config: ml_collections.ConfigDict, devices: Sequence[jax.Device] | None = None
    ):
        """Builds the model of `config`; weights come with `load`.

        Args:
            config: of the run.
            devices: that predict `config.evaluate.batch_size` images each at a time; None: all of
                this process.
        """
        self._config, self._model = config, build_stlm(config)
        self._devices = list(jax.local_devices() if devices is None else devices)
        self._batch_size = config.evaluate.batch_size * len(self._devices)
        self._size, self._top_k = config.image_size, config.evaluate.score_top_k
        self._everywhere: Sharding = SingleDeviceSharding(self._devices[0])
        self._split: Sharding = self._everywhere
        predict = make_predict_fn(config, self._model)
        if len(self._devices) > 1:
            mesh = Mesh(np.array(self._devices), (DATA,))
            self._everywhere = NamedSharding(mesh, PartitionSpec())
            self._split = NamedSharding(mesh, PartitionSpec(DATA))
            predict = functools.partial(_on_devices, predict, mesh)
        self._predict = jit(predict, static_argnums=2)
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
            step, variables = restore_student(folder, variable_shapes(self._model))
        self.take(variables)
        return step

    def take(self, variables: Variables) -> None:
        """Takes weights, host arrays."""
        self._variables = jax.device_put(variables, self._everywhere)

    def __call__(self, views: Iterable[View]) -> Iterator[ImageMaps]:
        """Predicts images of side `config.image_size`, in order, a batch at a time."""
        return predict_views(self._batch, views, self._batch_size, self._top_k)

    def cost(self, runs: int) -> Cost:
        """What the prediction of an image costs, by `runs` timed batches; nothing is compiled."""
        shape = (self._batch_size, self._size, self._size, 3)
        images = jax.device_put(np.zeros(shape, np.uint8), self._split)
        arguments = self._variables, images, (self._size, self._size)
        several = f", {len(self._devices)} of them" if self._devices[1:] else ""
        compiled = self._predict.lower(*arguments).compile()  # JAX keeps it from the first batch
        return Cost(
            parameters=count_parameters(self._variables),
            flops=flops_of(compiled) * len(self._devices) / self._batch_size,
            latency_ms=median_ms(lambda: self._predict(*arguments), runs) / self._batch_size,
            batch_size=self._batch_size,
            device=self._devices[0].device_kind + several,
        )

    def _batch(self, pixels: np.ndarray) -> dict[str, jax.Array]:
        images = jax.device_put(pixels, self._split)
        arguments = self._variables, images, (self._size, self._size)
        if not self._compiled:
            compile_apart(self._predict, *arguments)
            self._compiled = True
        return self._predict(*arguments)


def _on_devices(
    predict: Callable, mesh: Mesh, variables: Variables, images: jax.Array, size: tuple[int, int]
) -> dict[str, jax.Array]:
    """`predict`, of which each device has its share of the images; nothing is sent."""
    return jax.shard_map(
        lambda variables, images: predict(variables, images, size),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(DATA)),
        out_specs=PartitionSpec(DATA),
        check_vma=False,
    )(variables, images)
