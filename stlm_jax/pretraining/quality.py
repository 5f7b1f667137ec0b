"""Figures that say whether a teacher's features are worth imitating."""

import functools

import jax
import numpy as np

from stlm_jax.models.sam import Sam


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, variables, images):
    return model.apply(variables, images)


def features(model: Sam, variables, images: np.ndarray, batch: int = 16) -> list[np.ndarray]:
    """Features 1 and 2 of (N, H, W, 3) uint8, in evaluation mode; each (N, h, w, C) float32."""
    parts = [
        _apply(model, variables, images[start : start + batch])
        for start in range(0, len(images), batch)
    ]
    return [np.concatenate([np.asarray(x) for x in level]) for level in zip(*parts, strict=True)]


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over positions of the cosine of two (..., C) arrays; 1 is perfect imitation."""
    return float((_unit(a) * _unit(b)).sum(-1).mean())


def spread(x: np.ndarray, across_images: bool = True) -> float:
    """Mean cosine of two different positions of (N, h, w, C), exactly; near 0 is informative.

    `across_images` takes every pair of the pool; without it only pairs inside one image.
    """
    unit = _unit(x).reshape(len(x), -1, x.shape[-1]).astype(np.float64)
    groups = unit.reshape(1, -1, x.shape[-1]) if across_images else unit
    count = groups.shape[1]
    total = np.square(groups.sum(1)).sum(-1) - count  # |Σu|² less each with itself
    return float((total / (count * (count - 1))).mean())


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ in float64."""
    difference = a.astype(np.float64) - b
    return float(np.linalg.norm(difference) / np.linalg.norm(b.astype(np.float64)))
