"""What the values of a configuration may be."""

import math
from collections.abc import Callable
from typing import Any

import ml_collections

from stlm_jax.data.geometry import GEOMETRIES
from stlm_jax.errors import UserError
from stlm_jax.metrics import check_names

_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "names separated by commas",
}

_POSITIVE_INTS = (
    "train.batch_size", "data.texture_count", "student.segmentation_channels",
    "checkpoint.every_steps", "checkpoint.keep", "log.every_steps", "evaluate.batch_size",
    "evaluate.score_top_k",
)  # fmt: skip
_COUNTS = (
    "train.epochs", "train.steps", "evaluate.panels",
    "log.images_every_steps", "report.gallery", "evaluate.latency_runs",
)  # fmt: skip
_AT_LEAST_ZERO = (
    "optimizer.learning_rate", "optimizer.residual_learning_rate",
    "optimizer.head_learning_rate", "optimizer.weight_decay", "loss.cosine_weight",
    "loss.focal_weight", "loss.l1_weight", "loss.focal_gamma", "student.map_init_scale",
    "data.cache_gib",
)  # fmt: skip
_BELOW_ONE = ("optimizer.b1", "optimizer.b2", "optimizer.momentum", "calibration.held_out")
_FRACTIONS = (
    "pseudo.clean_probability", "pseudo.beta_min", "pseudo.beta_max", "pseudo.perlin_threshold",
)  # fmt: skip
_FOLDER_KEYS = (
    "data.train_dir", "data.test_good_dir", "data.test_defect_dir", "data.mask_dir", "data.csv",
)  # fmt: skip


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every key with its dots, such as `train.steps`, and its value; in order."""
    flat: dict[str, Any] = {}
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            flat |= {f"{key}.{below}": v for below, v in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def check(config: ml_collections.ConfigDict) -> None:
    """Refuse values that no part of the program could work with.

    Raises:
        UserError: naming the key, its value and what it may be.
    """
    # Here, not above: these import jax, and a mistyped flag is answered without.
    from stlm_jax.data.sources import SOURCES
    from stlm_jax.data.truth import is_resolution
    from stlm_jax.dataset import ON_ERROR
    from stlm_jax.models.build import ENCODERS, SAM_VARIANTS
    from stlm_jax.optimizer import DECAYS
    from stlm_jax.pseudo_anomaly import MAX_GRID_EXPONENT
    from stlm_jax.rotation import POLICIES

    choices = {
        "dtype": ("float32", "bfloat16"),
        "teacher.name": tuple(SAM_VARIANTS),
        "student.encoder": tuple(ENCODERS),
        "student.init": ("random", "mobile_sam"),
        "optimizer.decay": DECAYS,
        "data.source": tuple(SOURCES),
        "data.geometry": GEOMETRIES,
        "data.on_error": ON_ERROR,
    }
    values = flatten(config)
    steps_of = tuple(key for key in values if key.startswith("train.steps_of."))
    choices |= {key: tuple(POLICIES) for key in values if key.startswith("data.rotation.")}
    for key, allowed in choices.items():
        if key in values and values[key] not in allowed:
            raise UserError(f"--config.{key}={values[key]}: must be one of {', '.join(allowed)}")
    rules: list[tuple[tuple[str, ...], Callable[[Any], bool], str]] = [
        ((*_POSITIVE_INTS, *steps_of), lambda v: v >= 1, "must be 1 or more"),
        (_COUNTS, lambda v: v >= 0, "must be 0 or more"),
        (("seed",), lambda v: 0 <= v < 2**32, "must be in 0..4294967295"),
        (_AT_LEAST_ZERO, lambda v: v >= 0 and math.isfinite(v), "must be a number of 0 or more"),
        (_BELOW_ONE, lambda v: 0 <= v < 1, "must be at least 0 and below 1"),
        (_FRACTIONS, lambda v: 0 <= v <= 1, "must be in 0..1"),
        (("calibration.quantile",), lambda v: 0 < v <= 1, "must be above 0 and at most 1"),
        (("calibration.pixel_quantile",), lambda v: 0.9 <= v <= 1, "must be in 0.9..1"),
        (("pseudo.visible_difference",), lambda v: 0 <= v < 255, "must be 0 or more, below 255"),
        (("predict.tile",), lambda v: v == 0 or v >= 32, "must be 0, or 32 or more"),
        (("report.thumbnail",), lambda v: 32 <= v <= 1024, "must be in 32..1024"),
        (
            ("evaluate.resolution",),
            is_resolution,
            "must be image_size, native or a number of pixels from 16 up, such as 256",
        ),
        (("image_size",), lambda v: v >= 32 and v % 16 == 0, "must be a multiple of 16 from 32 up"),
    ]
    for keys, accepts, requirement in rules:
        for key in keys:
            if key in values and not accepts(values[key]):
                raise UserError(f"--config.{key}={values[key]}: {requirement}")
    for key in _FOLDER_KEYS:
        if values[key] and values["data.source"] != "folder":
            raise UserError(
                f"--config.{key}={values[key]}: is read with --config.data.source=folder only, "
                f"not with {values['data.source']}"
            )
    for key in ("data.categories", "evaluate.metrics"):
        if not values[key] or not all(isinstance(name, str) for name in values[key]):
            raise UserError(wrong_type(key, values[key], ("",)))
    if not values["train.steps"] and not values["train.epochs"]:
        raise UserError("--config.train.steps=0: give train.steps or train.epochs")
    if values["pseudo.beta_min"] > values["pseudo.beta_max"]:
        raise UserError(
            f"--config.pseudo.beta_min={values['pseudo.beta_min']}: must not be above "
            f"pseudo.beta_max, which is {values['pseudo.beta_max']}"
        )
    if not (
        0
        <= values["pseudo.perlin_min_exponent"]
        <= values["pseudo.perlin_max_exponent"]
        <= MAX_GRID_EXPONENT
    ):
        raise UserError(
            f"--config.pseudo.perlin_max_exponent={values['pseudo.perlin_max_exponent']}: must be "
            f"from perlin_min_exponent, {values['pseudo.perlin_min_exponent']}, "
            f"to {MAX_GRID_EXPONENT}"
        )
    try:
        check_names(values["evaluate.metrics"])
    except UserError as error:
        raise UserError(f"--config.evaluate.metrics: {error}") from None


def wrong_type(key: str, value: Any, default: Any) -> str:
    """The line that refuses `value`, where `default` is of the type it must have."""
    return f"--config.{key}={value}: must be {_TYPES[type(default)]}, such as {_example(default)}"


def _example(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(default[:2]) or "bottle,cable"
    return str(default).lower() if isinstance(default, bool) else str(default)
