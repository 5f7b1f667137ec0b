"""Exact values worked out from the definitions, and one from the MVTec evaluator's own toy set."""

import numpy as np
import pytest
from folding import folded

from stlm_jax.metrics import evaluate
from stlm_jax.metrics.image_level import LabelledScores, best_f1
from stlm_jax.metrics.inputs import Inputs
from stlm_jax.metrics.overlap_curves import area, log_area

STRIP = np.array([[[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]]])
STRIP_MASK = np.array([[[1, 0, 1, 0, 0, 0, 0, 0, 0, 0]]])


def exactly(maps, masks, names):
    return evaluate(maps, masks, names=names)


def exactly_in_float32(maps, masks, names):
    return evaluate(maps.astype(np.float32), masks, names=names)


def streamed(maps, masks, names):
    return folded(maps, masks, names).result().values


MEASURES = (exactly, exactly_in_float32, streamed)


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
        ("iap", 0.8333333),
        ("iap90", 0.6666667),
        ("aupro_destseg", 0.7916667),
        ("aupro_destseg_0.05", 0.4),
        ("aupro_destseg_1", 0.933125),
    ],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_strip_of_ten_pixels(name, value, measure):
    assert measure(STRIP, STRIP_MASK, [name]) == pytest.approx({name: value}, abs=1e-6)


def test_threshold_of_the_best_f1():
    strip = LabelledScores(STRIP_MASK.ravel() > 0, STRIP.ravel())
    assert best_f1(strip) == pytest.approx((0.8, 0.7))


@pytest.mark.parametrize("measure", MEASURES)
def test_ties_are_merged(measure):
    maps = np.array([[[1.0] * 4 + [0.0] * 6]])
    masks = np.array([[[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]])
    expected = {
        "aupro": 0.5833333,
        "aupro_1": 0.875,
        "aupro_destseg": 0.5,
        "aupro_destseg_1": 0.875,
    }
    assert measure(maps, masks, list(expected)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_regions_touching_at_a_corner_are_one(measure):
    maps = np.arange(16)[::-1].reshape(1, 4, 4) / 16
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, 0, 0] = 1
    masks[0, 1, 1:4] = 1
    assert measure(maps, masks, ["aupro"]) == pytest.approx({"aupro": 0.25}, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_instances_count_alike_and_background_never(measure):
    maps = np.arange(36).reshape(1, 6, 6) / 36  # a region at the lowest scores, 0 among them
    masks = np.zeros((1, 6, 6), np.uint8)
    masks[0, 0, :4] = masks[0, 3:5, 3:5] = 1
    expected = {"iap": 0.2071429, "iap90": 0.2}
    assert measure(maps, masks, list(expected)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("bounds", "of_full", "of_part"),
    [((1e-3, 1e-1), 0.03025, 0.3025), ((1e-5, 1e-4), 5.5e-5, 5.5e-4)],
)
def test_per_image_overlap(bounds, of_full, of_part):
    steps = np.ones(1_000_000)
    for count in (100_000, 10_000, 1_000, 100, 10, 1):
        steps[:count] += 1
    maps = np.stack([steps.reshape(1000, 1000)] * 2)
    part = (steps > 1).reshape(1000, 1000)
    good = np.zeros_like(part)
    for defective, expected in ((np.ones_like(part), of_full), (part, of_part)):
        points = Inputs(maps, np.stack([good, defective]), weights=["share"]).share_points
        assert log_area(points, "share", *bounds) == pytest.approx(expected, abs=1e-9)
    three = np.concatenate([maps, maps[:1]])
    masks = np.stack([good, np.ones_like(part), part])
    for measure in MEASURES:
        found = measure(three, masks, ["aupimo"])["aupimo"]
        assert found == pytest.approx((5.5e-5 + 5.5e-4) / 2, abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 400, 7), (400, 1, 7)])
def test_one_column_of_a_ramp(shape):
    maps = (np.arange(2800) / 2800).reshape(shape)
    masks = np.zeros(shape, bool)
    masks[..., 3] = True
    points = Inputs(maps, masks).pixel_points
    assert area(points, "region", 1 / 3) == pytest.approx(0.16666563, abs=1e-8)


@pytest.mark.parametrize("measure", MEASURES)
def test_toy_set_of_the_mvtec_evaluator(measure):
    generator = np.random.RandomState(1338)
    maps = np.stack([generator.random_sample((300, 500)) for _ in range(200)])
    masks = np.zeros(maps.shape, bool)
    masks[:, :10, :10] = True
    expected = {"aupro_0.3": 0.15101926603, "aupro_0.05": 0.02486664602, "aupro_1": 0.50001845843}
    exact = 1e-9 if measure is exactly else 1e-6
    assert measure(maps, masks, list(expected)) == pytest.approx(expected, abs=exact)


def test_image_level_best_f1():
    inputs = Inputs(
        np.zeros((4, 1, 1)), np.zeros((4, 1, 1)), scores=[0.1, 0.5, 0.9, 0.1], labels=[0, 1, 1, 1]
    )
    assert best_f1(inputs.images) == pytest.approx((6 / 7, 0.1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equal_f1_the_highest_threshold_to_the_last_bit(dtype):
    """Three of five judged rightly, or four of eight: F1 is 2/3 both times, but for rounding."""
    labels = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0], bool)
    scores = np.arange(11, dtype=dtype)[::-1] / dtype(11)
    value, threshold = best_f1(LabelledScores(labels, scores))
    assert (value, threshold) == (pytest.approx(2 / 3), float(scores[4]))
