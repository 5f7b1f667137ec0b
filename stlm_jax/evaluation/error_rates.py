"""How often a calibrated model is wrong."""

import math
from typing import Self

import numpy as np

from stlm_jax.metrics import MetricError
from stlm_jax.weights.description import Calibration


class ErrorRates:
    """How often images and pixels are judged wrongly at a calibration's thresholds.

    Images are added one by one; parts that several processes have counted are merged.
    """

    def __init__(self, calibration: Calibration):
        """Begins with no image."""
        self._calibration = calibration
        self._counts = np.zeros((2, 2, 2), np.int64)  # image or pixel, true class, verdict

    def add(
        self, anomaly_map: np.ndarray, mask: np.ndarray | None, score: float, label: bool
    ) -> None:
        """Counts an image: its map (H, W) float32, its mask (H, W) bool, true on defects.

        The mask is None of a good image, and where it is not known.
        """
        if not (math.isfinite(score) and np.isfinite(anomaly_map).all()):
            raise MetricError("a score or a map's value is not finite")
        if mask is not None and mask.shape != anomaly_map.shape:
            raise MetricError(f"the mask is {mask.shape}, but the map {anomaly_map.shape}")
        self._counts[0, int(label), int(self._calibration.is_anomalous(score))] += 1
        if mask is None and label:  # nobody knows which of its pixels are defective
            return
        alarms = anomaly_map > self._calibration.pixel_threshold
        bad = 0 if mask is None else np.count_nonzero(mask)
        hits = 0 if mask is None else np.count_nonzero(alarms[mask])
        false_alarms = np.count_nonzero(alarms) - hits
        good = alarms.size - bad
        self._counts[1] += ((good - false_alarms, false_alarms), (bad - hits, hits))

    def merge(self, other: Self) -> None:
        """Adds what another has counted by the same thresholds."""
        ours, theirs = (
            (known.threshold, known.pixel_threshold)
            for known in (self._calibration, other._calibration)
        )
        if theirs != ours:
            raise ValueError(f"thresholds {theirs} are not {ours}")
        self._counts += other._counts

    def result(self) -> dict[str, float]:
        """The rates in 0..1; nan of a kind of which there is none.

        `image_false_alarm_rate` is the share of good images above the threshold,
        `image_miss_rate` of defective ones that are not; `pixel_false_alarm_rate` and
        `pixel_miss_rate` are the same of pixels, wherever their truth is known.
        """
        rates = {}
        for name, (good, bad) in zip(("image", "pixel"), self._counts, strict=True):
            rates[f"{name}_false_alarm_rate"] = _share(good[1], good.sum())
            rates[f"{name}_miss_rate"] = _share(bad[0], bad.sum())
        return rates


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
