"""One step of training: a pure function of (state, teacher variables, batch, key)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from stlm_jax import losses
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.optimizer import make_optimizer, rate_factor
from stlm_jax.pseudo_anomaly import PseudoSample, pseudo_batch
from stlm_jax.rotation import rotate_batch
from stlm_jax.train_state import TrainState

Metrics = dict[str, jax.Array]
TeacherFeatures = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]


def loss_terms(prediction, teacher: TeacherFeatures | None, mask, hyper) -> Metrics:
    """The published losses of a batch.

    Args:
      prediction: `stlm_jax.models.stlm.Prediction`.
      teacher: the teacher's feature levels of the pseudo-anomalous and of the clean image, the
        targets of the plain and of the denoising stream; None trains the segmentation alone.
      mask: (N, H, W), 1 where the image was changed.
      hyper: arrays `cosine_weight`, `focal_weight`, `l1_weight`, `focal_gamma`.

    Returns:
      Scalars `cosine`, `focal`, `l1` and their weighted sum `loss`.
    """
    target = losses.reduce_mask(mask, prediction.map.shape[1:])
    focal = losses.focal_loss(prediction.map, target, hyper["focal_gamma"])
    l1 = losses.l1_loss(prediction.map, target)
    cosine = jnp.zeros(())
    if teacher is not None:
        of_pseudo, of_clean = teacher
        distances = map(
            losses.cosine_distance,
            (*prediction.plain, *prediction.denoising),
            (*of_pseudo, *of_clean),
        )
        cosine = losses.cosine_loss(distances)
    total = (
        hyper["cosine_weight"] * cosine + hyper["focal_weight"] * focal + hyper["l1_weight"] * l1
    )
    return {"loss": total, "cosine": cosine, "focal": focal, "l1": l1}


def teacher_features(teacher: Sam, variables: Any, pseudo, clean) -> TeacherFeatures:
    """The frozen teacher's feature levels of both images, in one batch."""
    count = clean.shape[0]
    images = jnp.concatenate([pseudo.astype(jnp.float32), clean.astype(jnp.float32)])
    levels: Any = jax.lax.stop_gradient(teacher.apply(variables, images))
    return tuple(x[:count] for x in levels), tuple(x[count:] for x in levels)


def draw_samples(key, batch: dict[str, jax.Array], hyper) -> tuple[jax.Array, PseudoSample]:
    """What a step with `key` makes of its `batch`: the clean images, rotated, and the samples."""
    clean = rotate_batch(key, batch["image"], hyper)
    return clean, pseudo_batch(key, clean, batch["textures"], hyper)


def make_gradient_fn(model: Stlm) -> Callable:
    """Makes `gradients(state, targets, pseudo, mask) -> (gradients, batch_stats, metrics)`.

    `targets` are `teacher_features`, or None; pseudo is (N, H, W, 3) in 0..255, mask (N, H, W).
    The gradients are those of the parameters, the running statistics those after the batch.
    """

    def gradients(state: TrainState, targets: TeacherFeatures | None, pseudo, mask):
        def objective(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            prediction, changed = model.apply(
                variables, pseudo, train=True, mutable=["batch_stats"]
            )
            terms = loss_terms(prediction, targets, mask, state.hyper)
            return terms["loss"], (terms, changed["batch_stats"])

        found, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
        return found, batch_stats, {**metrics, "gradient_norm": optax.global_norm(found)}

    return gradients


def make_apply_fn(config: ml_collections.ConfigDict) -> Callable:
    """Makes `apply(state, gradients, batch_stats) -> state`, the optimisers' part of a step."""
    optimizer = make_optimizer(config.optimizer)

    def apply(state: TrainState, gradients, batch_stats) -> TrainState:
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        factor = rate_factor(state.step, state.hyper["decay_steps"])
        updates = jax.tree.map(lambda leaf: leaf * factor, updates)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )

    return apply


def make_update(config: ml_collections.ConfigDict, model: Stlm, teacher: Sam | None) -> Callable:
    """Makes `update(state, teacher_variables, clean, pseudo, mask) -> (state, metrics)`.

    It is the part of the step behind the pseudo-anomalies: clean and pseudo are (N, H, W, 3) in
    0..255, mask is (N, H, W).
    """
    gradient_fn, apply = make_gradient_fn(model), make_apply_fn(config)

    def update(state: TrainState, teacher_variables, clean, pseudo, mask):
        targets = None
        if teacher is not None:
            targets = teacher_features(teacher, teacher_variables, pseudo, clean)
        gradients, batch_stats, metrics = gradient_fn(state, targets, pseudo, mask)
        return apply(state, gradients, batch_stats), metrics

    return update


def make_train_step(
    config: ml_collections.ConfigDict, model: Stlm, teacher: Sam | None
) -> Callable[[TrainState, Any, dict[str, jax.Array], jax.Array], tuple[TrainState, Metrics]]:
    """Makes `step(state, teacher_variables, batch, key) -> (state, metrics)`, to be jitted.

    The teacher's variables are an argument, never a closure: they would become constants of the
    program. `batch` holds `image` (N, H, W, 3) and `textures` (T, H, W, 3), uint8. Metrics are
    float32 scalars: the loss terms, `gradient_norm`, and `anomalous`, the batch's share of
    changed pixels.
    """
    update = make_update(config, model, teacher)

    def step(state, teacher_variables, batch, key):
        clean, sample = draw_samples(key, batch, state.hyper)
        state, metrics = update(state, teacher_variables, clean, sample.image, sample.mask)
        return state, {**metrics, "anomalous": sample.mask.mean()}

    return step
