"""How often a calibrated model is wrong, against counting by hand."""

import math
import pickle

import numpy as np
import pytest

from stlm_jax.evaluation.error_rates import ErrorRates
from stlm_jax.metrics import MetricError
from stlm_jax.weights.description import Calibration

SOME = Calibration(0.1, 1 / 3, 0.7, "held_out", 8)


def counted(images):
    rates = ErrorRates(SOME)
    for image in images:
        rates.add(*image)
    return rates


def test_rates_are_what_counting_gives():
    rng = np.random.default_rng(3)
    images, pixels = [], []
    for index in range(30):
        label = bool(rng.integers(2))
        values = rng.random((rng.integers(1, 9), rng.integers(1, 9)), np.float32)
        mask = rng.random(values.shape) < 0.3 if label else np.zeros(values.shape, bool)
        if index % 5 == 0:
            images.append((values, None, rng.random() / 5, label))
        else:
            images.append((values, mask, rng.random() / 5, label))
        if index % 5 or not label:
            pixels += zip(values.ravel() > 0.7, mask.ravel(), strict=True)
    verdicts = [(score > 0.1, label) for _, _, score, label in images]

    def share(of, wrong):
        of_kind = [verdict for verdict, truth in of if truth != wrong]
        return sum(verdict == wrong for verdict in of_kind) / len(of_kind)

    expected = {
        "image_false_alarm_rate": share(verdicts, True),
        "image_miss_rate": share(verdicts, False),
        "pixel_false_alarm_rate": share(pixels, True),
        "pixel_miss_rate": share(pixels, False),
    }
    assert all(0 < value < 1 for value in expected.values())
    assert counted(images).result() == pytest.approx(expected)
    merged = counted(images[20:])
    merged.merge(pickle.loads(pickle.dumps(counted(images[:20]))))
    assert merged.result() == counted(images).result()


def test_rates_of_what_there_is_not_are_nan():
    good = (np.full((2, 2), 0.7, np.float32), np.zeros((2, 2), bool), 0.1, False)
    assert all(math.isnan(value) for value in ErrorRates(SOME).result().values())
    found = counted([good]).result()  # at a threshold, not above
    assert found.pop("image_false_alarm_rate") == found.pop("pixel_false_alarm_rate") == 0
    assert len(found) == 2 and all(math.isnan(value) for value in found.values())


def test_rates_refuse_what_would_be_a_wrong_number():
    values, mask = np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)
    with pytest.raises(MetricError, match="not finite"):
        counted([(values, mask, math.nan, True)])
    with pytest.raises(MetricError, match="not finite"):
        counted([(values * np.nan, mask, 0.5, True)])
    with pytest.raises(MetricError, match=r"mask is \(2, 3\), but the map \(2, 2\)"):
        counted([(values, np.zeros((2, 3), bool), 0.5, True)])
    with pytest.raises(ValueError, match="thresholds"):
        ErrorRates(SOME).merge(ErrorRates(Calibration(0.2, 1, 0.7, "training", 1)))
