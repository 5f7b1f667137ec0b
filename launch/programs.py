"""The programs that a run of a configuration consists of, as its own code makes them, unloaded.

All arrays are shapes: no weight is read or drawn, and the data set need not be there.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch.measured import EVALUATION, FROM_STORE, STORE, TRAIN
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.compilation import jit as jit_here
from stlm_jax.training import step
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import abstract_train_state

DATA = "data"  # the axis of a mesh over which a batch is spread


@dataclasses.dataclass(frozen=True)
class Program:
    """One program and what it is called with.

    Attributes:
        name: one of `launch.measured.PROGRAMS`.
        batch: images in a call.
        devices: that share it.
        arguments: of a call, `jax.ShapeDtypeStruct` leaves with their shardings.
        held: the same leaves by what they are.
        jitted: the function as a run compiles it.
        static: further arguments, of which there is a program each.
        turns: of loops of which only the device knows how often they turn, on average.
    """

    name: str
    batch: int
    devices: int
    arguments: tuple[Any, ...]
    held: dict[str, Any]
    jitted: Any
    static: tuple[Any, ...] = ()
    turns: float = 1.0

    def trace(self) -> Any:
        """The traced program, to be lowered and compiled."""
        return self.jitted.trace(*self.arguments, *self.static)

    def held_bytes(self) -> dict[str, float]:
        """Bytes of the arguments on one device, by what they are."""
        return {name: float(_shard_bytes(tree)) for name, tree in self.held.items()}


def programs(
    config: ml_collections.ConfigDict, mesh: Mesh, shard_teacher: bool = False
) -> Iterator[Program]:
    """The programs of a configuration on a mesh, the dearest first.

    Args:
        config: of the run; its batches are split over the mesh's axis `DATA`.
        mesh: of devices, of one at least.
        shard_teacher: whether the teacher's variables are split as well, and not on every device.
    """
    parts = _Parts(config, mesh, shard_teacher)
    yield parts.train()
    if parts.teacher is not None:
        yield parts.train_from_store()
        yield parts.teacher_store()
    yield parts.evaluation()


class _Parts:
    """What the programs of a configuration share."""

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh, shard_teacher: bool):
        self.config, self.mesh = config, mesh
        self.devices = mesh.shape[DATA]
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(DATA))
        self.model: Stlm = build_stlm(config)
        self.teacher: Sam | None = None
        self.teacher_variables: Any = None
        if config.teacher.checkpoint != "none":
            self.teacher = build_sam(config.teacher.name, jnp.dtype(config.dtype))
            place = self._spread if shard_teacher else self._on_every
            self.teacher_variables = place(variable_shapes(self.teacher))
        self.state = self._on_every(abstract_train_state(config, self.model))
        self.optimizer = make_optimizer(config.optimizer)
        side = (config.image_size, config.image_size, 3)
        count, textures = config.train.batch_size, config.data.texture_count
        self.batch = {
            "image": self._split((count, *side), jnp.uint8),
            "textures": self._on_every(jax.ShapeDtypeStruct((textures, *side), jnp.uint8)),
        }

    def train(self) -> Program:
        """The step as `training.train.Trainer` compiles it."""
        function = functools.partial(step.train_step, self.model, self.teacher, self.optimizer)
        arguments = self.state, self.teacher_variables, self.batch
        return self._training(TRAIN, function, arguments)

    def train_from_store(self) -> Program:
        """The step with the teacher's features read in place of computed."""

        def function(state, targets, batch):
            _, sample = step.draw_samples(state.step_key(), batch, state.hyper)
            found = step.gradients(self.model, state, targets, sample.image, sample.mask)
            return step.apply(self.optimizer, state, found[0], found[1]), found[2]

        levels = self._features(self.config.train.batch_size)
        return self._training(FROM_STORE, function, (self.state, (levels, levels), self.batch))

    def teacher_store(self) -> Program:
        """The teacher's features of a batch of images."""
        assert self.teacher is not None
        images = self.batch["image"]
        return Program(
            STORE,
            images.shape[0],
            self.devices,
            (self.teacher_variables, images),
            {"teacher": self.teacher_variables, "inputs": images},
            self._jit(self.teacher.apply, self.split),
        )

    def evaluation(self) -> Program:
        """Maps and scores of a batch, as `inference.predictor.Predictor` compiles them."""
        config = self.config
        size = (config.image_size, config.image_size)
        count = config.evaluate.batch_size * self.devices
        pixels = self._split((count, *size, 3), jnp.uint8)
        variables = self.state.student()
        predict = make_predict_fn(config, self.model)
        return Program(
            EVALUATION,
            count,
            self.devices,
            (variables, pixels),
            {"parameters": variables, "inputs": pixels},
            self._jit(predict, self.split, static_argnums=2),
            (size,),
        )

    def _training(self, name: str, function: Callable, arguments: tuple[Any, ...]) -> Program:
        state, second, batch = arguments
        rest = (state.step, state.hyper, state.key, batch)
        held = {
            "parameters": state.student(),
            "optimiser": state.opt_state,
            "teacher": second if name == TRAIN else None,
            "inputs": rest if name == TRAIN else (rest, second),
        }
        jitted = self._jit(function, self.everywhere, donate_argnums=0)
        return Program(name, self.config.train.batch_size, self.devices, arguments, held, jitted)

    def _features(self, count: int) -> tuple[Any, ...]:
        side = self.config.image_size
        images = jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)
        assert self.teacher is not None
        levels: Any = jax.eval_shape(self.teacher.apply, self.teacher_variables, images)
        return tuple(self._split(level.shape, jnp.bfloat16) for level in levels)

    def _jit(self, function: Callable, results: NamedSharding, **options: Any) -> Any:
        """Jits a function as a run on such a device would."""
        if self.mesh.devices.size > 1:  # a run on one device leaves them where they are
            options["out_shardings"] = results
        # The compiler's options are those of the default backend, here the CPU's.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return jit_here(function, **options) if on_cpu else jax.jit(function, **options)

    def _split(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.split)

    def _on_every(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: _placed(leaf, self.everywhere), tree)

    def _spread(self, tree: Any) -> Any:
        """Splits each leaf along the longest of its axes that can be."""

        def place(leaf):
            fitting = [i for i, side in enumerate(leaf.shape) if side % self.devices == 0]
            if not fitting:
                return _placed(leaf, self.everywhere)
            axis = max(fitting, key=lambda i: leaf.shape[i])
            names = [DATA if i == axis else None for i in range(len(leaf.shape))]
            return _placed(leaf, NamedSharding(self.mesh, PartitionSpec(*names)))

        return jax.tree.map(place, tree)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shard_bytes(tree: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += leaf.dtype.itemsize * math.prod(shape)
    return total
