"""One step of training: a pure function of state, teacher variables and batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stlm_jax.models.components import PUBLISHED, Components
from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.training import losses
from stlm_jax.training.optimizer import rate_factor
from stlm_jax.training.pseudo_anomaly import PseudoSample, pseudo_batch
from stlm_jax.training.rotation import rotate_batch
from stlm_jax.training.state import TrainState
from stlm_jax.training.teacher import TeacherFeatures, live_targets, widened
from stlm_jax.training.variants import draw_stored

Metrics = dict[str, jax.Array]


def train_step(
    model: Stlm,
    teacher: Sam | None,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    teacher_variables: Any,
    batch: dict[str, Any],
    *,
    accumulate: int = 1,
    lanes: int = 1,
) -> tuple[TrainState, dict[str, Any]]:
    """The whole step; jitted with its first three arguments bound.

    Args:
        model: the student.
        teacher: None trains the segmentation alone, but for stored features.
        optimizer: of `make_optimizer`.
        state: before the step.
        teacher_variables: an argument and never a closure, which would make them constants of the
            program.
        batch: `image` (N, H, W, 3) and `textures` (T, H, W, 3), uint8; where clean features are
            kept, `cached` of `live_targets`; where all are stored, `stored` of `draw_stored`, with
            `targets`, those of the samples and of the clean images in bfloat16.
        accumulate: micro-batches that the gradients are the mean of, see `mean_gradients`.
        lanes: the devices that the batch lies on, each with as many samples that follow one
            another; see `teacher_features`.

    Returns:
        The state after it, and float32 scalars: the loss terms, `gradient_norm`, `anomalous`,
        the batch's share of changed pixels, and `teacher_passes`, how often the teacher was run for
        a sample. With `cached` also `produced` of `live_targets`.
    """
    samples, facts = prepare_samples(
        teacher, state.step_key(), state.hyper, teacher_variables, batch, lanes
    )
    state, metrics = update(model, optimizer, state, samples, accumulate)
    return state, {**metrics, **facts}


class Samples(NamedTuple):
    """What a step trains on.

    Attributes:
        image: (N, H, W, 3) in 0..255, pseudo-anomalous.
        mask: (N, H, W), 1 where an image was changed.
        targets: the teacher's features; None without a teacher.
    """

    image: jax.Array
    mask: jax.Array
    targets: TeacherFeatures | None


def prepare_samples(
    teacher: Sam | None, key, hyper, teacher_variables: Any, batch: dict[str, Any], lanes: int = 1
) -> tuple[Samples, dict[str, Any]]:
    """The samples of a step with `key`, and what `train_step` says of them besides metrics."""
    clean, sample = draw_samples(key, batch, hyper, lanes)
    targets: TeacherFeatures | None = None
    facts: dict[str, Any] = {"teacher_passes": jnp.zeros(())}
    if "stored" in batch:
        of_pseudo, of_clean = map(widened, batch["stored"]["targets"])
        targets = of_pseudo, of_clean
    elif teacher is not None:
        cached = batch.get("cached")
        targets, facts = live_targets(
            teacher, teacher_variables, sample.image, clean, cached, lanes
        )
    return Samples(sample.image, sample.mask, targets), facts


def update(
    model: Stlm,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    samples: Samples,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """The state after a step on the samples, and its metrics."""
    grads, batch_stats, metrics = mean_gradients(
        model, state, samples.targets, samples.image, samples.mask, accumulate
    )
    state = apply(optimizer, state, grads, batch_stats)
    return state, {**metrics, "anomalous": samples.mask.mean()}


def draw_samples(
    key, batch: dict[str, Any], hyper, lanes: int = 1
) -> tuple[jax.Array, PseudoSample]:
    """What a step with `key` makes of its `batch`: the clean images, rotated, and the samples."""
    if "stored" in batch:
        return draw_stored(batch, hyper)
    clean = rotate_batch(key, batch["image"], hyper["rotation"])
    return clean, pseudo_batch(key, clean, batch["textures"], hyper["pseudo"], lanes)


def mean_gradients(
    model: Stlm, state: TrainState, targets: TeacherFeatures | None, pseudo, mask, parts: int = 1
) -> tuple[Any, Any, Metrics]:
    """The mean of the `gradients` of so many micro-batches, one after the other.

    It takes the memory of one of them. Batch normalisation sees each by itself, and the running
    statistics are updated by each in turn. Part i has the samples i, i + parts, …: where a batch
    lies on several devices, each keeps its own.
    """
    if parts == 1:
        return gradients(model, state, targets, pseudo, mask)

    def split(x):
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def add(carried, part):
        batch_stats, total = carried
        grads, batch_stats, metrics = gradients(
            model, state.replace(batch_stats=batch_stats), *part
        )
        return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (batch_stats, total), metrics = jax.lax.scan(
        add, (state.batch_stats, zeros), jax.tree.map(split, (targets, pseudo, mask))
    )
    grads = jax.tree.map(lambda leaf: leaf / parts, total)
    metrics = {name: values.mean() for name, values in metrics.items()}
    return grads, batch_stats, {**metrics, "gradient_norm": optax.global_norm(grads)}


def gradients(
    model: Stlm, state: TrainState, targets: TeacherFeatures | None, pseudo, mask
) -> tuple[Any, Any, Metrics]:
    """The parameters' gradients, the running statistics after the batch, and the metrics.

    `pseudo` is (N, H, W, 3) in 0..255, `mask` (N, H, W), 1 where an image was changed.
    """
    components = Components(**state.hyper["student"])

    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        prediction, changed = model.apply(
            variables, pseudo, train=True, components=components, mutable=["batch_stats"]
        )
        terms = loss_terms(prediction, targets, mask, state.hyper["loss"], components)
        return terms["loss"], (terms, changed["batch_stats"])

    grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
    return grads, batch_stats, {**metrics, "gradient_norm": optax.global_norm(grads)}


def loss_terms(
    prediction,
    targets: TeacherFeatures | None,
    mask,
    hyper,
    components: Components = PUBLISHED,
) -> Metrics:
    """The published losses of a batch.

    Args:
        prediction: `stlm_jax.models.stlm.Prediction`.
        targets: the teacher's feature levels of the pseudo-anomalous and of the clean image, what
            the plain and the denoising stream imitate; None trains the segmentation alone.
        mask: (N, H, W), 1 where the image was changed.
        hyper: arrays `cosine_weight`, `focal_weight`, `l1_weight`, `focal_gamma`.
        components: what takes part: others are not guided, and without FA the map is not trained.

    Returns:
        Scalars `cosine`, `focal`, `l1` and their weighted sum `loss`.
    """
    target = losses.reduce_mask(mask, prediction.map.shape[1:])
    focal = losses.focal_loss(prediction.map, target, hyper["focal_gamma"])
    l1 = losses.l1_loss(prediction.map, target)
    cosine = jnp.zeros(())
    if targets is not None:
        of_pseudo, of_clean = targets
        distances = map(
            losses.cosine_distance,
            (*prediction.plain, *prediction.denoising),
            (*of_pseudo, *of_clean),
        )
        cosine = losses.cosine_loss(distances, components.guided)
    focal_weight, l1_weight = (
        hyper[name] * jnp.float32(components.fa) for name in ("focal_weight", "l1_weight")
    )
    total = hyper["cosine_weight"] * cosine + focal_weight * focal + l1_weight * l1
    return {"loss": total, "cosine": cosine, "focal": focal, "l1": l1}


def apply(
    optimizer: optax.GradientTransformation, state: TrainState, grads, batch_stats
) -> TrainState:
    """The state after an update by `grads`."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    # The rates are arrays in the optimiser's state, so their fall is applied to the updates: each
    # is proportional to its rate.
    factor = rate_factor(state.step, state.hyper["optimizer"]["decay_steps"])
    updates = jax.tree.map(lambda leaf: leaf * factor, updates)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
