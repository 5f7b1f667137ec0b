"""Per-region overlap, the recall in which every ground-truth region counts the same.

Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021), section 5; regions are
8-connected as in the MVTec evaluator. AUPRO is `OperatingPoints.area` with these weights.
"""

import numpy as np
from scipy import ndimage

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)


def region_weights(masks: np.ndarray) -> np.ndarray:
    """The reciprocal area of the region that each defective pixel belongs to.

    Args:
        masks: (N, H, W) bool; regions are 8-connected and end with their image.

    Returns:
        (P,) float64, for the P defective pixels in row-major order over images.
    """
    weights = [np.zeros(0)]
    for mask in masks:
        if mask.any():
            regions, _ = ndimage.label(mask, structure=_EIGHT_CONNECTED)
            region = regions[mask]
            weights.append(1.0 / np.bincount(region)[region])
    return np.concatenate(weights)
