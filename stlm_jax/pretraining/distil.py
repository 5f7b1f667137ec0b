"""Distils a pool of images and targets into the demo teacher: the encoder first, then the decoder.

The encoder learns feature 1 with all its parameters. Then it is frozen, and the prompt constants
and the decoder learn feature 2 from it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stlm_jax.models.sam import Sam
from stlm_jax.models.segmentation import l2_normalise
from stlm_jax.pretraining.targets import Pool

Variables = dict[str, Any]
Report = Callable[[int, dict[str, float]], None]

ENCODER = "image_encoder"
SENSOR_NOISE = 10.0  # largest standard deviation, grey levels, of what feature 1 must ignore


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One run of AdamW with a one-cycle learning rate."""

    epochs: float
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.02

    def steps(self, images: int) -> int:
        """Number of updates on a pool of so many images."""
        return max(1, round(self.epochs * images / self.batch_size))

    def optimiser(self, images: int) -> optax.GradientTransformation:
        """AdamW behind a clip of the gradient's norm; only what is multiplied with decays."""
        rate = optax.cosine_onecycle_schedule(
            self.steps(images), self.learning_rate, pct_start=0.15, final_div_factor=1e3
        )
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(
                rate,
                weight_decay=self.weight_decay,
                mask=lambda tree: jax.tree_util.tree_map_with_path(_decays, tree),
            ),
        )


def _decays(path, leaf) -> bool:
    constant = "pe_layer" in jax.tree_util.keystr(path)  # SAM's random matrix, never trained
    return leaf.ndim > 1 and not constant


def cosine_loss(feature, target):
    """Mean over positions of 1 − cos."""
    return 1.0 - (l2_normalise(feature) * l2_normalise(target)).sum(-1).mean()


def centred(feature):
    """Less its mean over each image's positions, (N, h, w, C): what is unusual in the image."""
    return feature - feature.mean((1, 2), keepdims=True)


def batches(count: int, schedule: Schedule, seed: int):
    """Indices of each step's images: whole permutations, one after the other."""
    rng = np.random.default_rng(seed)
    queue = np.empty(0, np.int64)
    for _ in range(schedule.steps(count)):
        while len(queue) < schedule.batch_size:
            queue = np.concatenate([queue, rng.permutation(count)])
        yield queue[: schedule.batch_size]
        queue = queue[schedule.batch_size :]


def _run(step, state, images, targets, schedule: Schedule, seed: int, report: Report):
    """Applies `step` to every batch; reports the loss averaged over the last few steps."""
    average, key = None, jax.random.key(seed)
    for index, chosen in enumerate(batches(len(images), schedule, seed)):
        state, loss = step(state, jax.random.fold_in(key, index), images[chosen], targets[chosen])
        loss = float(loss)
        average = loss if average is None else 0.95 * average + 0.05 * loss
        report(index + 1, {"1-cos": average})
    return state


def train_encoder(
    model: Sam,
    variables: Variables,
    pool: Pool,
    schedule: Schedule,
    seed: int,
    report: Report,
    centred_weight: float = 0.5,
) -> Variables:
    """Variables whose feature 1 imitates `pool.targets`; the decoder's are as given.

    `centred_weight` is the share of the loss in which features and targets are compared after
    their mean over the image is gone: what the image as a whole shows is learned soon, a small
    thing in it that does not belong there is what STLM needs.
    """
    optimiser = schedule.optimiser(len(pool.images))

    def loss_of(params, batch_stats, images, targets):
        everything = {"params": {**variables["params"], ENCODER: params}}
        (feature, _), updates = model.apply(
            {**everything, "batch_stats": batch_stats}, images, True, mutable=["batch_stats"]
        )
        loss = cosine_loss(feature, targets)
        if centred_weight:
            inside = cosine_loss(centred(feature), centred(targets))
            loss = (1 - centred_weight) * loss + centred_weight * inside
        return loss, updates.get("batch_stats", {})

    @jax.jit
    def step(state, key, images, targets):
        params, batch_stats, optimiser_state = state
        scale_key, noise_key = jax.random.split(key)
        sigma = SENSOR_NOISE * jax.random.uniform(scale_key, (len(images), 1, 1, 1))
        noise = sigma * jax.random.normal(noise_key, images.shape)
        (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            params, batch_stats, images + noise, targets.astype(jnp.float32)
        )
        updates, optimiser_state = optimiser.update(gradients, optimiser_state, params)
        return (optax.apply_updates(params, updates), batch_stats, optimiser_state), loss

    params = variables["params"][ENCODER]
    state = (params, variables.get("batch_stats", {}), optimiser.init(params))
    params, batch_stats, _ = _run(step, state, pool.images, pool.targets, schedule, seed, report)
    return {"params": {**variables["params"], ENCODER: params}, "batch_stats": batch_stats}


def train_decoder(
    model: Sam,
    variables: Variables,
    pool: Pool,
    schedule: Schedule,
    seed: int,
    report: Report,
) -> Variables:
    """Variables whose feature 2 imitates `centred(pool.targets)`; the encoder's are as given."""
    optimiser = schedule.optimiser(len(pool.images))
    targets = centred(pool.targets.astype(np.float32))
    frozen = {ENCODER: variables["params"][ENCODER]}
    batch_stats = variables.get("batch_stats", {})

    def loss_of(params, images, targets):
        everything = {"params": {**params, **frozen}, "batch_stats": batch_stats}
        return cosine_loss(model.apply(everything, images)[1], targets)

    @jax.jit
    def step(state, _, images, targets):
        params, optimiser_state = state
        loss, gradients = jax.value_and_grad(loss_of)(params, images, targets.astype(jnp.float32))
        updates, optimiser_state = optimiser.update(gradients, optimiser_state, params)
        return (optax.apply_updates(params, updates), optimiser_state), loss

    params = {name: tree for name, tree in variables["params"].items() if name != ENCODER}
    state = (params, optimiser.init(params))
    params, _ = _run(step, state, pool.images, targets, schedule, seed, report)
    return {"params": {**params, **frozen}, "batch_stats": batch_stats}
