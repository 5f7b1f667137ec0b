"""Exact values worked out from the definitions, and one from the MVTec evaluator's own toy set."""

import numpy as np
import pytest

from stlm_jax.metrics import evaluate
from stlm_jax.metrics.classification import best_f1
from stlm_jax.metrics.inputs import Inputs

STRIP = np.array([[[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]]])
STRIP_MASK = np.array([[[1, 0, 1, 0, 0, 0, 0, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aupro", 19 / 24),
        ("aupro_0.3", 19 / 24),
        ("aupro_0.05", 0.5),
        ("aupro_1", 0.9375),
        ("pixel_auroc", 0.9375),
        ("pixel_ap", 0.8333333),
        ("pixel_f1max", 0.8),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strip_of_ten_pixels(name, value, dtype):
    assert evaluate(STRIP.astype(dtype), STRIP_MASK, names=[name])[name] == pytest.approx(
        value, abs=1e-6
    )


def test_threshold_of_the_best_f1():
    assert best_f1(Inputs(STRIP, STRIP_MASK).pixel_points) == pytest.approx((0.8, 0.7))


def test_ties_are_merged():
    maps = np.array([[[1.0] * 4 + [0.0] * 6]])
    masks = np.array([[[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]])
    found = evaluate(maps, masks, names=["aupro", "aupro_1"])
    assert found == pytest.approx({"aupro": 0.5833333, "aupro_1": 0.875}, abs=1e-6)


def test_regions_touching_at_a_corner_are_one():
    maps = np.arange(16)[::-1].reshape(1, 4, 4) / 16
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, 0, 0] = 1
    masks[0, 1, 1:4] = 1
    assert evaluate(maps, masks, names=["aupro"])["aupro"] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 400, 7), (400, 1, 7)])
def test_one_column_of_a_ramp(shape):
    maps = (np.arange(2800) / 2800).reshape(shape)
    masks = np.zeros(shape, bool)
    masks[..., 3] = True
    points = Inputs(maps, masks).pixel_points
    assert points.area(1 / 3) == pytest.approx(0.16666563, abs=1e-8)


def test_toy_set_of_the_mvtec_evaluator():
    generator = np.random.RandomState(1338)
    maps = np.stack([generator.random_sample((300, 500)) for _ in range(200)])
    masks = np.zeros(maps.shape, bool)
    masks[:, :10, :10] = True
    found = evaluate(maps, masks, names=["aupro_0.3", "aupro_0.05", "aupro_1"])
    expected = {"aupro_0.3": 0.15101926603, "aupro_0.05": 0.02486664602, "aupro_1": 0.50001845843}
    assert found == pytest.approx(expected, abs=1e-9)


def test_image_level_best_f1():
    inputs = Inputs(
        np.zeros((4, 1, 1)), np.zeros((4, 1, 1)), scores=[0.1, 0.5, 0.9, 0.1], labels=[0, 1, 1, 1]
    )
    assert best_f1(inputs.image_points) == pytest.approx((6 / 7, 0.1))
