"""Areas under curves of weighted recall over the false positive rate: AUPRO, sPRO and AUPIMO."""

import numpy as np

from stlm_jax.metrics.checks import Undefined
from stlm_jax.metrics.operating_points import OperatingPoints


def area(points: OperatingPoints, weight: str, limit: float = 1.0) -> np.ndarray:
    """(…) area under the recall of `weight` over the false positive rate up to `limit`, by `limit`.

    The curve starts at (0, 0), joins the ends of rows by straight lines and is interpolated
    linearly where it crosses `limit`, which lies in (0, 1]. With the weights `region` this is the
    AUPRO of the MVTec evaluator, with `saturated` the sPRO of MVTec LOCO's.
    """
    width, share = clipped_steps(points.false_positive_rate(), 0.0, limit)
    recall = points.recall(weight)
    return np.sum(width * (recall[..., :-1] + share * np.diff(recall, axis=-1)), axis=-1) / limit


def log_area(points: OperatingPoints, weight: str, lower: float, upper: float) -> np.ndarray:
    """(…) mean of the recall of `weight` over the logarithm of the rate between the bounds.

    With the negatives of good images only and the weights `share` this is AUPIMO (Bertoldo et al.,
    2024), its mean over defective images. Undefined where there are too few negatives for a rate
    as low as `lower`, or too many of the highest are tied with positives.
    """
    if points.resolution > lower:
        raise Undefined(f"good images hold too few pixels for a false positive rate of {lower:g}")
    rate, recall = points.false_positive_rate(), points.recall(weight)
    # From no false positive at all to the first, the logarithm has no straight line to follow.
    rising = np.diff(recall, axis=-1) > 0
    lost = np.any((rate[..., :-1] == 0) & (rate[..., 1:] > lower) & rising, axis=-1)
    if np.all(lost):
        raise Undefined(
            "the highest scores of good images are those of defects too, at a false positive rate "
            f"above {lower:g}"
        )
    x = np.log(np.maximum(rate, np.finfo(np.float64).tiny))
    width, share = clipped_steps(x, np.log(lower), np.log(upper))
    total = np.sum(width * (recall[..., :-1] + share * np.diff(recall, axis=-1)), axis=-1)
    return np.where(lost, np.nan, total / np.log(upper / lower))


def clipped_steps(x: np.ndarray, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray]:
    """What lies between two bounds of each step of `x` (…, K + 1), which never falls.

    (…, K) how wide it is, and (…, K) where its middle lies, as a share of the whole step.
    """
    inside = np.clip(x, lower, upper)
    width, step = np.diff(inside, axis=-1), np.diff(x, axis=-1)
    middle = (inside[..., :-1] + inside[..., 1:]) / 2 - x[..., :-1]
    return width, middle / np.where(step > 0, step, 1)
