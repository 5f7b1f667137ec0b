"""The defects in a map: connected regions above the pixel threshold."""

from typing import Any

import numpy as np
from scipy import ndimage

_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are connected, as in the metrics


def regions_of(values: np.ndarray, threshold: float, min_area: int = 1) -> list[dict[str, Any]]:
    """The regions of a map (H, W) that are above `threshold`, the largest first.

    Each has `box`, [x, y, width, height], `area` in pixels, at least `min_area`, and `peak`, its
    largest value.
    """
    labels, count = ndimage.label(values > threshold, _EIGHT)
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    areas = np.bincount(labels.ravel())[1:]
    peaks = np.atleast_1d(ndimage.maximum(values, labels, numbers))
    boxes = ndimage.find_objects(labels)
    found = [
        {
            "box": [across.start, down.start, across.stop - across.start, down.stop - down.start],
            "area": int(areas[index]),
            "peak": float(peaks[index]),
        }
        for index, (down, across) in enumerate(boxes)
        if areas[index] >= min_area
    ]
    return sorted(found, key=lambda region: -region["area"])
