"""STLM's optimisers: Adam on the streams, SGD on the FA module, by one rule a parameter."""

import re
from typing import Any

import jax.numpy as jnp
import ml_collections
import optax
from flax import traverse_util

# The first column is searched in the parameter's path; every path matches exactly one.
RULES = (
    (r"^encoder[TS]/", "adam"),
    (r"^modelS?/mask_decoder/", "adam"),
    (r"^modelS?/prompt_encoder/no_mask_embed/", "adam"),
    (r"positional_encoding_gaussian_matrix$", "frozen"),  # a buffer in torch
    (r"^segmentation/res_", "sgd_residual"),
    (r"^segmentation/head_", "sgd_head"),
)


def group_of(path: str) -> str:
    """The optimiser's name for a parameter's path, as in 'segmentation/res_0/conv1/kernel'."""
    groups = [group for pattern, group in RULES if re.search(pattern, path)]
    if len(groups) != 1:
        raise ValueError(f"parameter {path} matches {len(groups)} optimiser rules, not one")
    return groups[0]


def label_parameters(params: Any) -> Any:
    """A tree like `params` that holds each parameter's group."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({path: group_of(path) for path in flat}, sep="/")


def _torch_sgd(learning_rate, momentum, weight_decay):
    """SGD as torch's: decay is added to the gradient, before the momentum."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum)
    )


def rate_factor(step, decay_steps):
    """What the learning rates of a step are multiplied with.

    Args:
        step: updates done before it.
        decay_steps: length of the half cosine from 1 to 0; 0 keeps the rates constant.
    """
    progress = jnp.minimum(step / jnp.maximum(decay_steps, 1.0), 1.0)
    return jnp.where(decay_steps > 0, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)), 1.0)


def make_optimizer(settings: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """The published optimisers of `config.optimizer`.

    Every number becomes an array in the optimiser's state (`hyperparams`), so that members of
    an ensemble may differ in it.
    """
    sgd = dict(momentum=settings.momentum, weight_decay=settings.weight_decay)
    inject_sgd = optax.inject_hyperparams(_torch_sgd)
    return optax.multi_transform(
        {
            "adam": optax.inject_hyperparams(optax.adam)(
                learning_rate=settings.learning_rate, b1=settings.b1, b2=settings.b2
            ),
            "sgd_residual": inject_sgd(learning_rate=settings.residual_learning_rate, **sgd),
            "sgd_head": inject_sgd(learning_rate=settings.head_learning_rate, **sgd),
            "frozen": optax.set_to_zero(),
        },
        label_parameters,
    )
