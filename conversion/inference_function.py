"""The function that exports hold: evaluation's own, images in, anomaly maps and scores out."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from stlm_jax import __version__
from stlm_jax.description import Description
from stlm_jax.inference_step import make_predict_fn
from stlm_jax.models.build import build_stlm
from stlm_jax.trained import Trained
from stlm_jax.weights_file import FORMAT

INPUT = "image"
OUTPUTS = ("anomaly_map", "anomaly_score")

Infer = Callable[[Any, Any], tuple[jax.Array, jax.Array]]


def make_inference_fn(trained: Trained) -> Infer:
    """Makes `infer(variables, image)`, evaluation's function at the trained image size S.

    `image` is uint8 (N, S, S, 3), RGB. The results are the map (N, S, S) and the score (N,), both
    float32. Activations are float32, whatever `config.dtype` the training chose.
    """
    config = ml_collections.ConfigDict(trained.config)
    config.dtype = "float32"
    predict = make_predict_fn(config, build_stlm(config))
    size = (config.image_size, config.image_size)

    def infer(variables, image):
        result = predict(variables, image, size)
        return result["map"], result["score"]

    return infer


def input_shape(trained: Trained, count: Any) -> jax.ShapeDtypeStruct:
    """What `infer` takes: `count` images, which may be a symbol."""
    size = trained.config.image_size
    return jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)


def weights_digest(variables: Any) -> str:
    """SHA-256 of all tensors' names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        values = np.ascontiguousarray(leaf, "<f4")
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def describe(description: Description, variables: Any, precision: str) -> dict[str, Any]:
    """What an export says of itself, by name; None of what is not known."""
    return {
        "format": FORMAT,
        "version": __version__,
        **description.values(),
        "precision": precision,
        "weights_sha256": weights_digest(variables),
    }
