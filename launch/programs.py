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
from launch.together import Together
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.compilation import jit as jit_here
from stlm_jax.runtime.sharding import DATA, weight_shardings
from stlm_jax.training.feature_cache import abstract_part, rotates
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.placement import Placement
from stlm_jax.training.state import abstract_train_state
from stlm_jax.training.step import train_step
from stlm_jax.training.store_description import feature_shapes
from stlm_jax.training.store_writer import features_of
from stlm_jax.training.stored_features import abstract_stored
from stlm_jax.training.trainer import bound_step

_ANY_PIXEL = 0.955  # of the masks that are drawn, as measured on the published generator


@dataclasses.dataclass(frozen=True)
class Program:
    """One program and what it is called with.

    Attributes:
        name: one of `launch.measured.PROGRAMS`.
        batch: images in a call.
        devices: that share it.
        trainings: that make a step in it.
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
    trainings: int = 0

    def trace(self) -> Any:
        """The traced program, to be lowered and compiled."""
        return self.jitted.trace(*self.arguments, *self.static)

    def held_bytes(self) -> dict[str, float]:
        """Bytes of the arguments on one device, by what they are."""
        return {name: float(_shard_bytes(tree)) for name, tree in self.held.items()}


def programs(
    config: ml_collections.ConfigDict, mesh: Mesh, together: Together | None = None
) -> Iterator[Program]:
    """The programs of a configuration, the dearest first.

    Args:
        config: of the run.
        mesh: of devices, of one at least; batches are split over its axis `DATA`.
        together: what a step trains, on which devices; None: one training, on the first of `mesh`.
    """
    parts = trained = _Parts(config, mesh)
    if together is not None and not together.alone:
        trained = _Trained(config, together)
    yield trained.train()
    if parts.teacher is not None:
        yield trained.train_from_store()
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
        side = (config.image_size, config.image_size, 3)
        count, textures = config.train.batch_size, config.data.texture_count
        self.batch: dict[str, Any] = {
            "image": jax.ShapeDtypeStruct((count, *side), jnp.uint8),
            "textures": jax.ShapeDtypeStruct((textures, *side), jnp.uint8),
        }

    def train(self) -> Program:
        """The step as `training.train.Trainer` compiles it, with the targets of a run."""
        batch = self.batch
        if self.teacher is not None and self.config.teacher.cache_gib > 0:
            batch = {**batch, "cached": abstract_part(self.levels)}
        # A loop turns once for each image whose features are not known.
        turns = self._passes() * self.config.train.batch_size / self.devices
        return self._training(TRAIN, self.teacher, self.teacher_variables, batch, turns)

    def train_from_store(self) -> Program:
        """The same with the teacher's features out of a store."""
        batch = {**self.batch, "stored": abstract_stored(self.levels)}
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
        textures = self._on_every(self.batch["textures"])
        arguments += (textures, self.state.hyper, self._on_every(needed))
        # Each variant but the empty ones takes a pass; the clean image one for all where it stands
        # still, else one for each.
        names = self.config.data.categories
        still = sum(not rotates(self.config, name) for name in names) / len(names)
        variants = self.config.teacher.store_variants
        return Program(
            STORE,
            1,
            1,
            (self.teacher_variables, *arguments),
            {"teacher": self.teacher_variables, "inputs": arguments},
            self._jit(
                functools.partial(features_of, self.teacher), **self._results(self.everywhere)
            ),
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
            self._jit(predict, static_argnums=2, **self._results(self.split)),
            (size,),
        )

    def _training(
        self, name: str, teacher: Sam | None, variables: Any, batch: Any, turns: float = 1.0
    ) -> Program:
        optimizer, parts = make_optimizer(self.config.optimizer), self.config.train.accumulate
        function = functools.partial(train_step, self.model, teacher, optimizer, accumulate=parts)
        state, batch = self.state, self._on_every(batch)
        held = {
            "parameters": state.student(),
            "optimiser": state.opt_state,
            "teacher": variables,
            "inputs": (state.step, state.hyper, state.key, batch),
        }
        jitted = self._jit(function, donate_argnums=0)
        arguments, count = (state, variables, batch), self.config.train.batch_size
        return Program(name, count, 1, arguments, held, jitted, turns=turns, trainings=1)

    def _passes(self) -> float:
        """How often the teacher is run for a sample, on average."""
        names = self.config.data.categories
        return sum(passes_of(self.config, name) for name in names) / len(names)

    def _results(self, sharding: NamedSharding) -> dict[str, Any]:
        """Options of `_jit`; a run on one device leaves results where they are."""
        return {"out_shardings": sharding} if self.mesh.devices.size > 1 else {}

    def _jit(self, function: Callable, **options: Any) -> Any:
        """Jits a function as a run on such a device would."""
        # The compiler's options are those of the default backend, here the CPU's.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return jit_here(function, **options) if on_cpu else jax.jit(function, **options)

    def _split(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.split)

    def _on_every(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: _placed(leaf, self.everywhere), tree)


class _Trained(_Parts):
    """The step of several trainings, or on several devices, as `training.trainer` makes it."""

    def __init__(self, config: ml_collections.ConfigDict, together: Together):
        super().__init__(config, together.mesh)
        self.together = together

    def _training(
        self, name: str, teacher: Sam | None, variables: Any, batch: Any, turns: float = 1.0
    ) -> Program:
        config, shape = self.config, self.together.shape
        mesh = self.mesh if self.mesh.size > 1 else None
        step = bound_step(train_step, self.model, teacher, tuple(sorted(config.optimizer.items())),
                          config.train.accumulate, mesh, shape, config.ensemble.inner)  # fmt: skip
        place = _Places(self.mesh)
        state = place.groups(_leading(shape, abstract_train_state(config, self.model)))
        active = place.groups(jax.ShapeDtypeStruct(shape, jnp.bool_))
        batch = _leading(shape[:1], batch)
        textures = place.groups(batch.pop("textures"))
        batch = {**place.batch(batch), "textures": textures}
        held = {
            "parameters": state.student(),
            "optimiser": state.opt_state,
            "teacher": variables,
            "inputs": (state.step, state.hyper, state.key, active, batch),
        }
        pack = self.together.packs[0]
        return Program(
            name,
            config.train.batch_size * len(pack),
            self.mesh.size,
            (state, active, variables, batch),
            held,
            self._jit(step, donate_argnums=0),
            turns=turns,
            trainings=len(self.together.members([pack])),
        )

    def _passes(self) -> float:
        """Of a device with the most of them, as all begin their next steps together."""
        return max(
            sum(passes_of(group.lead.run.config, group.lead.category) for group in row) / len(row)
            for row in self.together.rows()
        )


class _Places(Placement):
    """Tells shapes where arrays would be put."""

    def _put(self, tree: Any, spec: Any) -> Any:
        assert self.mesh
        mesh = self.mesh
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: _placed(leaf, NamedSharding(mesh, spec(path))), tree
        )


def passes_of(config: ml_collections.ConfigDict, category: str) -> float:
    """How often the teacher is run for a sample: of the pseudo-anomalous image and the clean one.

    The former is the clean one now and then; clean ones that stand still are known soon.
    """
    known = config.teacher.cache_gib > 0 and not rotates(config, category)
    return (1 - config.pseudo.clean_probability) * _ANY_PIXEL + 1 - known


def _leading(axes: tuple[int, ...], tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), tree)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shard_bytes(tree: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += leaf.dtype.itemsize * math.prod(shape)
    return total
