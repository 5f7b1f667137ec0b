"""What training changes and what a checkpoint holds."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import struct, traverse_util

from stlm_jax.models.components import Components
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.stlm import Stlm
from stlm_jax.training.optimizer import group_of, make_optimizer
from stlm_jax.training.rotation import policy_numbers
from stlm_jax.training.start import initial_student

Hyper = dict[str, dict[str, jax.Array]]


class TrainState(struct.PyTreeNode):
    """The student during training; arrays only, so that it can be stacked over members.

    Attributes:
        step: int32, updates done.
        params: the student's parameters.
        batch_stats: its running statistics.
        opt_state: moments, and the optimisers' hyperparameters as arrays.
        hyper: numbers that an ablation may vary, each an array, by group: `loss`, `pseudo`,
            `rotation`, `optimizer`, `student`.
        key: uint32 data of the run's key; a step uses `fold_in(key, step)`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    hyper: Hyper
    key: jax.Array

    def student(self) -> dict[str, Any]:
        """For `model.apply`, and the first item of a checkpoint."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def training(self) -> dict[str, Any]:
        """All but the student, the second item of a checkpoint."""
        return {name: getattr(self, name) for name in ("step", "opt_state", "hyper", "key")}

    def step_key(self) -> jax.Array:
        """The key of the next step."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.key), self.step)


def category_key(seed: int, category: str) -> jax.Array:
    """The key of a category's run; it does not depend on which others are trained."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(category.encode()))


def hyperparameters(config: ml_collections.ConfigDict, category: str = "", steps: int = 0) -> Hyper:
    """The numbers of a category's training as arrays.

    Args:
        config: the run's configuration; the rates are in the optimiser's state instead.
        category: whose images are rotated as `config.data.rotation` says.
        steps: length of its training, over which the rates fall where they are to fall.
    """
    whole = ("perlin_min_exponent", "perlin_max_exponent")
    decay_steps = steps if config.optimizer.decay == "cosine" else 0
    return {
        "loss": {name: jnp.float32(value) for name, value in config.loss.items()},
        "pseudo": {
            name: jnp.int32(value) if name in whole else jnp.float32(value)
            for name, value in config.pseudo.items()
        },
        "rotation": policy_numbers(config.data.rotation, category),
        "optimizer": {"decay_steps": jnp.float32(decay_steps)},
        "student": {
            name: jnp.bool_(used) for name, used in Components.of(config.student)._asdict().items()
        },
    }


def create_train_state(
    config: ml_collections.ConfigDict,
    model: Stlm,
    key: jax.Array,
    category: str = "",
    steps: int = 0,
) -> TrainState:
    """The state before the first step; the weights and the training draw from parts of `key`."""
    weights_key, training_key = jax.random.split(key)
    variables = initial_student(config, model, weights_key)
    hyper = hyperparameters(config, category, steps)
    return _first_state(config, variables, training_key, hyper)


def abstract_train_state(config: ml_collections.ConfigDict, model: Stlm) -> TrainState:
    """The shapes and dtypes of the state, `jax.ShapeDtypeStruct` leaves; computes nothing."""
    return jax.eval_shape(
        lambda variables: _first_state(
            config, variables, jax.random.key(0), hyperparameters(config)
        ),
        variable_shapes(model),
    )


def _first_state(config, variables, key, hyper: Hyper) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=make_optimizer(config.optimizer).init(variables["params"]),
        hyper=hyper,
        key=jax.random.key_data(key),
    )


def parameter_table(params: Any) -> str:
    """The parameters by module and optimiser, a line each, and their sum."""
    counts: dict[tuple[str, str], int] = {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        module, part = path.split("/")[:2]
        name = module if module.startswith("encoder") else f"{module}/{part}"
        row = name, group_of(path)
        counts[row] = counts.get(row, 0) + int(np.prod(leaf.shape))
    lines = [f"{name:<40} {group:<12} {count:>12,}" for (name, group), count in counts.items()]
    return "\n".join([*lines, f"{'parameters':<53} {sum(counts.values()):>12,}"])
