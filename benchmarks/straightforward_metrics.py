"""Pixel AUROC, AP and AUPRO as one would write them down: all pixels of all images sorted at once.

As the MVTec evaluator does it: one argsort, then cumulative sums of what each pixel changes. Only
the reciprocal areas of regions are kept in float64; indices and counts in 32 bits, to save memory.
"""

import numpy as np
from scipy import ndimage


def evaluate(maps: list[np.ndarray], masks: list[np.ndarray], limit: float = 0.3):
    """Pixel AUROC, average precision and AUPRO of maps (H, W) float32 and masks (H, W) bool."""
    scores = np.concatenate([values.ravel() for values in maps])
    order = np.argsort(scores)[::-1].astype(np.uint32)
    falling = scores[order]
    last_of_ties = np.append(falling[1:] != falling[:-1], True)
    del scores, falling
    defective = np.concatenate([mask.ravel() for mask in masks])[order]
    weights = np.concatenate([_weights(mask).ravel() for mask in masks])[order]
    del order
    overlap = np.cumsum(weights, out=weights)[last_of_ties]
    true = np.cumsum(defective, dtype=np.uint32)[last_of_ties]
    predicted = np.flatnonzero(last_of_ties).astype(np.uint32) + 1
    del weights, defective, last_of_ties
    precision = np.sum(np.diff(true, prepend=0) * (true / predicted)) / true[-1]
    x = np.append(0, (predicted - true) / (predicted[-1] - true[-1]))
    auroc = np.trapezoid(np.append(0, true / true[-1]), x)
    y = np.append(0, overlap / overlap[-1])
    inside = int(np.searchsorted(x, limit, "right"))
    at_limit = np.interp(limit, x, y)
    x, y = np.append(x[:inside], limit), np.append(y[:inside], at_limit)
    return {"pixel_auroc": auroc, "pixel_ap": precision, "aupro": np.trapezoid(y, x) / limit}


def _weights(mask: np.ndarray) -> np.ndarray:
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    reciprocal = 1 / np.bincount(regions.ravel())
    reciprocal[0] = 0
    return reciprocal[regions]
