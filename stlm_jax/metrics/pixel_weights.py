"""How much each defective pixel counts, by the rules of the metrics that weigh pixels."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy import ndimage

from stlm_jax.metrics import checks
from stlm_jax.metrics.checks import MetricError

REGION, INSTANCE, SHARE, SATURATED = "region", "instance", "share", "saturated"
Region = tuple[np.ndarray, float]
_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)


def pixel_weights(
    names: Collection[str],
    values: np.ndarray,
    mask: np.ndarray,
    regions: Sequence[Region] | None = None,
) -> dict[str, np.ndarray]:
    """Weights of the defective pixels of an image.

    Args:
        names: those wanted. `region`: the reciprocal area of the pixel's 8-connected region, so
            that every region counts 1 (AUPRO). `instance`: 1 at one pixel of each region, whose
            score more than half of the region reaches (IAP). `share`: the reciprocal number of
            defective pixels, so that every image counts 1 (AUPIMO). `saturated`: of each of
            `regions`, 1 spread over as many of its highest pixels as saturate it (sPRO).
        values: (P,) scores of the defective pixels, in row-major order.
        mask: (H, W) bool with P pixels, at least one.
        regions: masks (H, W) bool within `mask` with their saturation in pixels; a region that a
            smaller size left no pixel is passed over.

    Returns:
        By name, (P,) float64.
    """
    weights: dict[str, np.ndarray] = {}
    if REGION in names or INSTANCE in names:
        region = region_numbers(mask)
        if REGION in names:
            weights[REGION] = 1.0 / np.bincount(region)[region]
        if INSTANCE in names:
            weights[INSTANCE] = _at_half(region, values)
    if SHARE in names:
        weights[SHARE] = np.full(len(values), 1.0 / len(values))
    if SATURATED in names:
        weights[SATURATED] = _until_saturated(values, mask, regions or ())
    return weights


def region_numbers(mask: np.ndarray) -> np.ndarray:
    """(P,) number, from 0, of the 8-connected region of each pixel of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(box, structure=_EIGHT_CONNECTED)
    return labels[box] - 1


def _at_half(region: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 at the pixel of rank size // 2 of each region, counted from 0 and its highest."""
    order = np.lexsort((-values, region))
    sizes = np.bincount(region)
    chosen = order[np.cumsum(sizes) - sizes + sizes // 2]
    weights = np.zeros(len(values))
    weights[chosen] = 1
    return weights


def _until_saturated(values: np.ndarray, mask: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    weights = np.zeros(len(values))
    for number, (region, saturation) in enumerate(regions):
        region = checks.binary(f"regions[{number}]", region)
        if region.shape != mask.shape:
            raise MetricError(f"regions[{number}] has shape {region.shape}, its mask {mask.shape}")
        if not 0 < saturation < np.inf:
            raise MetricError(f"the saturation of regions[{number}] is {saturation}; give pixels")
        inside = np.flatnonzero(region[mask])
        if len(inside) != region.sum():
            raise MetricError(f"regions[{number}] reaches outside its image's mask")
        needed = min(saturation, len(inside))
        highest = inside[np.argsort(-values[inside])]
        if needed:
            weights[highest] += np.clip(needed - np.arange(len(inside)), 0, 1) / needed
    return weights
