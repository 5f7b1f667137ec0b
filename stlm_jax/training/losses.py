"""STLM's losses (paper, section 3.4), all in float32."""

import jax.numpy as jnp

from stlm_jax.models.resize import resize_bilinear

_COSINE_EPSILON = 1e-8  # torch.nn.functional.cosine_similarity's
_PROBABILITY_MARGIN = 1e-7  # keeps both logarithms, and their gradients, finite in float32


def cosine_distance(student, teacher):
    """1 − cos along the channels: (N, h, w, C) twice to (N, h, w) float32, in 0..2."""
    student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
    dot = (student * teacher).sum(-1)
    squares = jnp.square(student).sum(-1) * jnp.square(teacher).sum(-1)
    return 1.0 - dot / jnp.sqrt(jnp.maximum(squares, _COSINE_EPSILON**2))


def cosine_loss(distances, guided):
    """The sum over maps (one a stream and level) of their means, of those that are `guided`."""
    return sum(
        jnp.mean(distance) * jnp.float32(counts)
        for distance, counts in zip(distances, guided, strict=True)
    )


def focal_loss(prediction, target, gamma):
    """Mean focal loss on probabilities, without class weights (published: `focal_loss`).

    Args:
        prediction: probability of an anomaly, any shape.
        target: 0 or 1, the same shape.
        gamma: exponent of the modulating factor.
    """
    p = jnp.clip(prediction, _PROBABILITY_MARGIN, 1.0 - _PROBABILITY_MARGIN)
    p_true = p * target + (1.0 - p) * (1.0 - target)
    return jnp.mean(-jnp.log(p_true) * (1.0 - p_true) ** gamma)


def l1_loss(prediction, target):
    """Mean absolute difference."""
    return jnp.mean(jnp.abs(prediction - target))


def reduce_mask(mask, size: tuple[int, int]):
    """The target of the segmentation: bilinear without antialias, then ≥ 0.5, as published.

    Args:
        mask: (N, H, W), 0 or 1.
        size: of the feature maps.

    Returns:
        (N, *size) float32, 0 or 1.
    """
    reduced = resize_bilinear(mask[..., None].astype(jnp.float32), size)[..., 0]
    return (reduced >= 0.5).astype(jnp.float32)
