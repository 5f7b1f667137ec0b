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
from stlm_jax.runtime.sharding import DATA, weight_shardings
from stlm_jax.training.feature_cache import abstract_part, rotates
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import abstract_train_state
from stlm_jax.training.step import train_step
from stlm_jax.training.store_description import feature_shapes
from stlm_jax.training.store_writer import features_of
from stlm_jax.training.stored_features import abstract_stored

_ANY_PIXEL = 0.955  # of the masks that are drawn, as measured on the published generator


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


def programs(config: ml_collections.ConfigDict, mesh: Mesh) -> Iterator[Program]:
    """The programs of a configuration on a mesh, the dearest first.

    Args:
        config: of the run; its batches are split over the mesh's axis `DATA`.
        mesh: of devices, of one at least.
    """
    parts = _Parts(config, mesh)
    yield parts.train()
    if parts.teacher is not None:
        yield parts.train_from_store()
        yield parts.teacher_store()
    yield parts.evaluation()


class _Parts:
    """What the programs of a configuration share."""

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self.devices = mesh.shape[DATA]
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(DATA))
        self.model: Stlm = build_stlm(config, self.devices)
        self.teacher: Sam | None = None
        self.teacher_variables: Any = None
        if config.teacher.checkpoint != "none":
            self.teacher = build_sam(config.teacher.name, jnp.dtype(config.dtype))
            shapes = variable_shapes(self.teacher)
            places = weight_shardings(shapes, mesh, DATA, config.teacher.sharding)
            self.teacher_variables = jax.tree.map(_placed, shapes, places)
        self.levels = feature_shapes(config, config.train.batch_size)
        self.state = self._on_every(abstract_train_state(config, self.model))
        self.optimizer = make_optimizer(config.optimizer)
        side = (config.image_size, config.image_size, 3)
        count, textures = config.train.batch_size, config.data.texture_count
        self.batch = {
            "image": self._split((count, *side), jnp.uint8),
            "textures": self._on_every(jax.ShapeDtypeStruct((textures, *side), jnp.uint8)),
        }

    def train(self) -> Program:
        """The step as `training.train.Trainer` compiles it, with the targets of a run."""
        batch, known = self.batch, 0.0
        if self.teacher is not None and self.config.teacher.cache_gib > 0:
            batch = {**batch, "cached": self._as_batch(abstract_part(self.levels))}
            known = self._share_that_stands_still()
        # A loop turns once for each image whose features are not known.
        passes = self._share_that_changes() + 1 - known
        turns = passes * self.config.train.batch_size / self.devices
        return self._training(TRAIN, self.teacher, self.teacher_variables, batch, turns)

    def train_from_store(self) -> Program:
        """The same with the teacher's features out of a store."""
        batch = {**self.batch, "stored": self._as_batch(abstract_stored(self.levels))}
        return self._training(FROM_STORE, None, None, batch)

    def teacher_store(self) -> Program:
        """What `training.store_writer` computes of an image's variant, on one device."""
        assert self.teacher is not None
        side = self.config.image_size
        image = jax.ShapeDtypeStruct((side, side, 3), jnp.uint8)
        stored = abstract_stored(self.levels)
        scalars = [jax.ShapeDtypeStruct((), stored[name].dtype) for name in ("place", "number")]
        needed = jax.ShapeDtypeStruct((), jnp.bool_)
        arguments = self._on_every((stored["key"], *scalars, image))
        arguments += (self.batch["textures"], self.state.hyper, self._on_every(needed))
        # Each variant but the empty ones takes a pass; the clean image one for all where it stands
        # still, else one for each.
        still = self._share_that_stands_still()
        variants = self.config.teacher.store_variants
        return Program(
            STORE,
            1,
            1,
            (self.teacher_variables, *arguments),
            {"teacher": self.teacher_variables, "inputs": arguments},
            self._jit(functools.partial(features_of, self.teacher), self.everywhere),
            turns=_ANY_PIXEL + 1 - still + still / variants,
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

    def _training(
        self, name: str, teacher: Sam | None, variables: Any, batch: Any, turns: float = 1.0
    ) -> Program:
        function = functools.partial(
            train_step,
            self.model,
            teacher,
            self.optimizer,
            accumulate=self.config.train.accumulate,
            lanes=self.devices,
        )
        state = self.state
        held = {
            "parameters": state.student(),
            "optimiser": state.opt_state,
            "teacher": variables,
            "inputs": (state.step, state.hyper, state.key, batch),
        }
        arguments = state, variables, batch
        # Features that are to be kept stay where they were made.
        jitted = self._jit(function, (self.everywhere, None), donate_argnums=0)
        count = self.config.train.batch_size
        return Program(name, count, self.devices, arguments, held, jitted, turns=turns)

    def _share_that_changes(self) -> float:
        """Of the samples, those that are not the clean image."""
        return (1 - self.config.pseudo.clean_probability) * _ANY_PIXEL

    def _share_that_stands_still(self) -> float:
        """Of the categories, those whose images are the same in every epoch."""
        names = self.config.data.categories
        return sum(not rotates(self.config, name) for name in names) / len(names)

    def _as_batch(self, tree: Any) -> Any:
        """Splits features (N, h, w, C); the few numbers beside them are on every device."""
        return jax.tree.map(
            lambda leaf: _placed(leaf, self.split if leaf.ndim == 4 else self.everywhere), tree
        )

    def _jit(self, function: Callable, results: Any, **options: Any) -> Any:
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


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shard_bytes(tree: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += leaf.dtype.itemsize * math.prod(shape)
    return total
