"""The frozen teacher's features, computed for those images only whose features are not known.

Which images those are is known on the device only, so a loop of as many turns as there are passes
to make runs the one copy of the teacher, an image a turn: a pass of SAM's encoder is work enough
for a chip, and what an image's features are does not depend on which others need a pass.
"""

from typing import Any

import jax
import jax.numpy as jnp

from stlm_jax.models.sam import Sam

Levels = tuple[jax.Array, ...]
TeacherFeatures = tuple[Levels, Levels]

TARGET_DTYPE = jnp.bfloat16  # of features that are kept


def teacher_features(
    teacher: Sam, variables: Any, pseudo, clean, needed=None, lanes: int = 1
) -> TeacherFeatures:
    """The feature levels of pseudo-anomalous and clean images.

    Args:
        teacher: its module.
        variables: the module's.
        pseudo: (N, H, W, 3) in 0..255.
        clean: likewise.
        needed: (N, 2) bool, of which pseudo-anomalous (0) and clean (1) images; None: of all.
        lanes: how many images a turn takes, each from its own N / lanes samples. Where a batch
            lies on several devices it is their number, so that each runs passes of its own images.

    Returns:
        Levels of the former and of the latter, (N, h, w, C) float32; not to be used where they are
        not needed.
    """
    count = clean.shape[0]
    images = jnp.stack([pseudo.astype(jnp.float32), clean.astype(jnp.float32)], 1)
    # By sample and not by kind: the samples of a lane lie next to each other.
    images = images.reshape(lanes, -1, *clean.shape[1:])
    if needed is None:
        needed = jnp.ones((count, 2), bool)
    needed = needed.reshape(lanes, -1)
    order = jnp.argsort(~needed, axis=1)  # those that need a pass come first
    shapes = jax.eval_shape(teacher.apply, variables, images[:, 0])
    empty = tuple(jnp.zeros((*needed.shape, *x.shape[1:]), x.dtype) for x in shapes)

    def turn(number, features: Levels) -> Levels:
        place = order[:, number]
        picked = jax.vmap(lambda lane, index: lane[index])(images, place)
        levels: Any = teacher.apply(variables, picked)
        put = jax.vmap(lambda lane, level, index: lane.at[index].set(level))
        return tuple(map(put, features, levels, (place, place)))

    features = jax.lax.fori_loop(0, needed.sum(1).max(), turn, empty)
    features = jax.lax.stop_gradient(features)
    pairs = [x.reshape(count, 2, *x.shape[2:]) for x in features]
    return tuple(x[:, 0] for x in pairs), tuple(x[:, 1] for x in pairs)


def live_targets(
    teacher: Sam, variables: Any, pseudo, clean, cached: dict[str, Any] | None = None, lanes=1
) -> tuple[TeacherFeatures, dict[str, Any]]:
    """The features that the two streams imitate; the teacher runs on what is not known only.

    A pseudo-anomalous image that is the clean one takes no pass of its own.

    Args:
        teacher: as in `teacher_features`, like those that are not named here.
        variables: likewise.
        pseudo: likewise.
        clean: likewise.
        cached: of the clean images the `levels` (N, h, w, C) in bfloat16 where `known` (N,) is
            true, and `rounded`, whether clean features are rounded to bfloat16, so that they are
            the same numbers wherever they come from. None: nothing is known or rounded.
        lanes: likewise.

    Returns:
        The features, and of the step: `teacher_passes`, how often the teacher was run for a sample,
        and with `cached` `produced`, the clean levels to be kept, where they were not known.
    """
    changed = (pseudo != clean.astype(pseudo.dtype)).any((1, 2, 3))  # (N,)
    unknown = jnp.ones_like(changed) if cached is None else ~cached["known"]
    needed = jnp.stack([changed, unknown], 1)
    of_pseudo, of_clean = teacher_features(teacher, variables, pseudo, clean, needed, lanes)
    facts: dict[str, Any] = {"teacher_passes": _passes(needed, lanes)}
    if cached is not None:
        # Not a cast and another one back, which XLA may leave out.
        kept = tuple(
            jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7) for x in of_clean
        )
        facts["produced"] = tuple(x.astype(TARGET_DTYPE) for x in kept)
        of_clean = _select(cached["rounded"] & unknown, kept, of_clean)
        of_clean = _select(unknown, of_clean, widened(cached["levels"]))
    return (_select(changed, of_pseudo, of_clean), of_clean), facts


def widened(levels: Levels) -> Levels:
    """Levels in float32."""
    return tuple(x.astype(jnp.float32) for x in levels)


def _passes(needed, lanes: int):
    """How many images the teacher is run on for a sample: a turn takes one of every lane."""
    turns = needed.reshape(lanes, -1).sum(1).max()
    return (turns * lanes / needed.shape[0]).astype(jnp.float32)


def _select(condition, ours: Levels, others: Levels) -> Levels:
    """Of each sample our levels where the (N,) condition holds, else the others."""
    condition = condition[:, None, None, None]
    return tuple(jnp.where(condition, x, y) for x, y in zip(ours, others, strict=True))
