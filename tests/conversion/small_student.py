"""A small student whose every parameter and statistic matters, and what evaluation says of it."""

import jax
import numpy as np
from flax import traverse_util

from stlm_jax.config import default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import random_variables

# Untrained, these are zeros and ones, which hide mistakes: (centre, spread).
SPREAD = {"scale": (1.0, 0.2), "bias": (0.0, 0.1), "mean": (0.0, 0.3), "var": (1.0, 0.15),
          "attention_biases": (0.0, 0.5)}  # fmt: skip


def _drawn(path, value, rng):
    """Leaves with which, unlike the untrained ones, a map depends on its image."""
    noise = rng.standard_normal(value.shape)
    if path[-1] == "kernel":
        return noise * np.sqrt(2.0 / np.prod(value.shape[:-1]))
    if path[-1] in SPREAD:
        centre, spread = SPREAD[path[-1]]
        return centre + spread * noise
    return value


def make_student(
    image_size, teacher="vit_tiny", encoder="tiny_vit_test", map_bias=0.0, **known
) -> TrainedModel:
    """A student with random weights; `map_bias` shifts the map before its sigmoid."""
    config = default()
    config.image_size = image_size
    config.teacher.name, config.student.encoder = teacher, encoder
    model = build_stlm(config)
    rng = np.random.default_rng(0)
    flat = traverse_util.flatten_dict(random_variables(model, jax.random.key(0)))
    flat = {path: np.asarray(_drawn(path, x, rng), np.float32) for path, x in flat.items()}
    segmentation = ("params", "segmentation")
    for name in ("conv1", "downsample_0"):  # what they see is products of unit vectors' entries
        kernel = flat[*segmentation, "res_0", name, "kernel"]
        kernel *= np.float32(kernel.shape[2] / 2)
    flat[*segmentation, "head_4", "kernel"] *= np.float32(0.3)  # the sigmoid is not saturated
    flat[*segmentation, "head_4", "bias"] += np.float32(map_bias)
    return TrainedModel(model, traverse_util.unflatten_dict(flat), config, **known)


def make_images(size, count=3) -> np.ndarray:
    """Noise, and noise enlarged from an eighth of the size; uint8."""
    rng = np.random.default_rng(1)
    fine = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    fine[1:] = coarse.repeat(8, 1).repeat(8, 2)[1:]
    return fine


def evaluated(student: TrainedModel, images) -> tuple[np.ndarray, np.ndarray]:
    """Maps and scores by the function that evaluation calls."""
    predict = jax.jit(make_predict_fn(student.config, student.model), static_argnums=2)
    result = predict(student.variables, images, images.shape[1:3])
    return np.asarray(result["map"]), np.asarray(result["score"])
