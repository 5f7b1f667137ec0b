"""What evaluation, prediction and exports compute: image in, full-size maps and scores out."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from stlm_jax.models.segmentation import cosine_distance_map, upsample_map
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.compilation import matmul_precision


def image_score(anomaly_map, top_k: int):
    """Mean of the `top_k` largest pixels of each map: (N, H, W) to (N,) float32."""
    flat = anomaly_map.reshape(anomaly_map.shape[0], -1)  # (N, H*W)
    return jax.lax.top_k(flat, min(top_k, flat.shape[1]))[0].mean(-1)


def make_predict_fn(config: ml_collections.ConfigDict, model: Stlm) -> Callable:
    """Makes `predict(variables, image, map_size)`, to be jitted with `map_size` static.

    `image` is uint8 (N, H, W, 3); `map_size` is (height, width) of the maps. The result holds
    `map` and `map_without_fa` (N, *map_size), `score` and `score_without_fa` (N,), float32; those
    without FA only where both streams and FA take part.
    """
    return _predict_fn(model, config.evaluate.score_top_k, config.precision)


@functools.lru_cache(maxsize=8)  # of one function jax keeps what it has traced and compiled
def _predict_fn(model: Stlm, top_k: int, precision: str) -> Callable:
    def predict(variables, image, map_size: tuple[int, int]) -> dict[str, jax.Array]:
        with matmul_precision(precision):  # here too, for exports and the Detector
            prediction: Any = model.apply(variables, image)
        maps, parts = {"": prediction.map}, model.components
        if parts.comparable:
            maps["_without_fa"] = cosine_distance_map(
                prediction.plain, prediction.denoising, parts.levels
            )
        result = {}
        for suffix, small in maps.items():
            full = upsample_map(small, map_size)
            result[f"map{suffix}"] = full
            result[f"score{suffix}"] = image_score(full, top_k)
        return result

    return predict
