"""What training changes and what a checkpoint holds."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct

from stlm_jax.initialization import variable_shapes
from stlm_jax.models.stlm import Stlm
from stlm_jax.optimizer import make_optimizer
from stlm_jax.rotation import policy_numbers
from stlm_jax.weights import initial_student


class TrainState(struct.PyTreeNode):
    """The student during training; arrays only, so that it can be stacked over members.

    Attributes:
      step: int32, updates done.
      params: the student's parameters.
      batch_stats: its running statistics.
      opt_state: moments, and the optimisers' hyperparameters as arrays.
      hyper: loss weights, γ and the numbers of the pseudo-anomalies and of the rotation, each an
        array.
      key: uint32 data of the run's key; a step uses `fold_in(key, step)`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    hyper: dict[str, jax.Array]
    key: jax.Array

    def variables(self) -> dict[str, Any]:
        """For `model.apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def step_key(self) -> jax.Array:
        """The key of the next step."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.key), self.step)


def hyperparameters(
    config: ml_collections.ConfigDict, category: str = "", steps: int = 0
) -> dict[str, jax.Array]:
    """The numbers of `config.loss` and `config.pseudo` as arrays, float32 or int32.

    Those of the category's rotation are among them, and `decay_steps`: `steps`, the length of its
    training, where `config.optimizer.decay` says so, or 0. The rates are in the optimiser's state.
    """
    decay_steps = steps if config.optimizer.decay == "cosine" else 0
    numbers = {**config.loss, **config.pseudo, "decay_steps": decay_steps}
    arrays = {
        name: jnp.asarray(value, jnp.int32 if name.endswith("exponent") else jnp.float32)
        for name, value in numbers.items()
    }
    return arrays | policy_numbers(config.data.rotation, category)


def create_train_state(
    config: ml_collections.ConfigDict,
    model: Stlm,
    key: jax.Array,
    category: str = "",
    steps: int = 0,
) -> TrainState:
    """The state before the first step.

    Args:
      config: the run's configuration.
      model: the student.
      key: typed key; the weights and the training draw from parts of it.
      category: whose images are rotated as `config.data.rotation` says.
      steps: of the category's training, over which the rates fall where they are to fall.

    Raises:
      UserError: `config.student.checkpoint` does not fit the student.
    """
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


def _first_state(config, variables, key, hyper) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=make_optimizer(config.optimizer).init(variables["params"]),
        hyper=hyper,
        key=jax.random.key_data(key),
    )
