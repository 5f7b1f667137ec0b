"""The function that exports hold: evaluation's own, images in, anomaly maps and scores out."""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.models.build import build_stlm


def make_export_fn(trained: TrainedModel) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
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


def input_shape(trained: TrainedModel, count: Any) -> jax.ShapeDtypeStruct:
    """What `infer` takes: `count` images, which may be a symbol."""
    size = trained.config.image_size
    return jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
