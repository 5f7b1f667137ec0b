"""What a teacher feature store says of itself, and whether a run may train from it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError
from stlm_jax.training.feature_store import COMMAND, FORMAT
from stlm_jax.training.variants import probe
from stlm_jax.weights.digest import tensor_digest

_TOLERANCE = 1e-3  # of the probe: another device rounds otherwise, by less
_WORDS = {
    "teacher": "config.teacher.name",
    "weights": "weights of the teacher of SHA-256",
    "dtype": "config.dtype",
    "image_size": "config.image_size",
    "textures": "textures of SHA-256",
    "variants": "config.teacher.store_variants",
    "seed": "config.seed",
}


def feature_shapes(config: ml_collections.ConfigDict, batch_size: int) -> list[Any]:
    """The shapes of a batch's feature levels, (N, h, w, C) float32 each; computes nothing."""
    sam = build_sam(config.teacher.name, jnp.dtype(config.dtype))
    images = jax.ShapeDtypeStruct((batch_size, *2 * (config.image_size,), 3), jnp.float32)
    return list(jax.eval_shape(sam.apply, variable_shapes(sam), images))


def describe(
    config: ml_collections.ConfigDict, weights: str | None, textures: np.ndarray
) -> dict[str, Any]:
    """What a store that a run's settings make says of itself; JSON values.

    Args:
        config: of the run.
        weights: digest of the teacher's weights; None where they are not asked for.
        textures: the bank, (T, S, S, 3) uint8.
    """
    levels = feature_shapes(config, 1)
    generator = {k: v for k, v in config.pseudo.items() if k != "clean_probability"}
    return {
        "format": FORMAT,
        "teacher": config.teacher.name,
        "weights": weights,
        "dtype": config.dtype,
        "image_size": config.image_size,
        "shape": [len(levels), *levels[0].shape[1:]],
        "variants": config.teacher.store_variants,
        "seed": config.seed,
        "textures": tensor_digest(textures),
        **{f"pseudo.{name}": value for name, value in generator.items()},
        "probe": np.asarray(jax.jit(probe)()).round(6).tolist(),
    }


def require_same(
    folder: Path, stored: dict[str, Any], ours: dict[str, Any], writing: bool = False
) -> None:
    """Refuses a store that is not of the run's teacher, size and generator, naming what differs.

    Args:
        folder: the store's.
        stored: what it says of itself.
        ours: what one that the run made would say; what is None is not asked for.
        writing: whether features are to be added: of the same seed and number of variants.
    """
    free = {"probe", "shape", *(() if writing else ("variants", "seed"))}
    for name, value in ours.items():
        found = stored.get(name)
        if name not in free and value is not None and found != value:
            words = _WORDS.get(name, f"config.{name}")
            raise UserError(
                f"{folder}: holds features of {words} {_short(found)}, the run's is "
                f"{_short(value)}: take another --config.teacher.store, written with {COMMAND}"
            )
    theirs, mine = np.asarray(stored.get("probe")), np.asarray(ours["probe"])
    if theirs.shape != mine.shape or np.abs(theirs - mine).max() > _TOLERANCE:
        raise UserError(
            f"{folder}: was written with another generator of pseudo-anomalies than this "
            f"stlm_jax's (or another version of JAX's random numbers): write another with {COMMAND}"
        )


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
