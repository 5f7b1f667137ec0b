"""Images folded in one by one give the numbers of the exact evaluation, however they are split."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from folding import folded
from hypothesis import given, settings
from hypothesis import strategies as st

from stlm_jax.metrics import Accumulator, MetricError, evaluate, evaluate_with_reasons
from stlm_jax.metrics.curves import MAX_POINTS, Curve, decimated

NAMES = (
    "image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro",
    "aupro_0.05", "aupro_destseg", "iap", "iap90", "aupimo", "spro", "spro_0.3",
)  # fmt: skip


def category(seed=0, count=9, size=40, levels=None):
    """Maps float32, masks, scores, regions with their saturation, kinds of defect."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(count, size, size))
    masks = np.zeros(maps.shape, bool)
    for index in range(count // 3, count):
        row, column = rng.integers(0, size - 8, 2)
        masks[index, row : row + 5, column : column + 7] = True
        masks[index, :2, :3] = True
    maps = 1 / (1 + np.exp(-(maps + 2 * masks)))
    if levels:
        maps = (maps * levels).round() / levels
    regions = [[(mask, mask.sum() / 3)] if mask.any() else None for mask in masks]
    defects = ["good" if not mask.any() else f"kind {i % 2}" for i, mask in enumerate(masks)]
    return maps.astype(np.float32), masks, maps.max(axis=(1, 2)), regions, defects


@given(st.integers(0, 1000), st.sampled_from([None, 3, 50]), st.integers(2, 7))
@settings(max_examples=30, deadline=None)
def test_as_exact(seed, levels, count):
    maps, masks, scores, regions, _ = category(seed, count, 24, levels)
    exact, reasons = evaluate_with_reasons(maps, masks, scores, names=NAMES, regions=regions)
    result = folded(maps, masks, NAMES, scores, regions=regions).result()
    assert result.reasons == reasons
    for name in NAMES:  # of so few pixels that two in one bin show
        assert result.values[name] == pytest.approx(exact[name], abs=1e-3, nan_ok=True), name
        if name not in reasons:
            apart = abs(result.values[name] - exact[name])
            assert apart <= result.error_bounds[name] + 1e-12, name
            if levels:  # a bin of one score changes nothing
                assert result.error_bounds[name] == 0, name
    assert list(result.values) == list(NAMES)


def test_order_and_split_do_not_matter():
    material = maps, masks, scores, regions, defects = category()
    whole = folded(maps, masks, NAMES, scores, None, regions, defects, bootstrap=50).result()
    order = np.random.default_rng(1).permutation(len(maps))
    shuffled = [[one[i] for i in order] for one in material]
    parts = []
    for part in (slice(0, 2), slice(2, 3), slice(3, None)):
        m, g, s, r, d = (one[part] for one in shuffled)
        parts.append(pickle.loads(pickle.dumps(folded(m, g, NAMES, s, None, r, d, bootstrap=50))))
    parts[2].merge(parts[0])
    before = parts[2].result()
    parts[2].merge(parts[1])
    assert before.values != parts[2].result().values
    merged = parts[2].result()
    assert merged.values == pytest.approx(whole.values, abs=1e-12, nan_ok=True)
    assert merged.error_bounds == pytest.approx(whole.error_bounds, abs=1e-12)
    for kind, values in whole.by_defect.items():
        assert merged.by_defect[kind] == pytest.approx(values, abs=1e-12, nan_ok=True)
    for name, interval in whole.intervals.items():
        assert merged.intervals[name] == pytest.approx(interval, abs=1e-9), name
    for name, curve in whole.curves.items():
        np.testing.assert_allclose(merged.curves[name], curve, atol=1e-12)


def test_a_merged_accumulator_is_left_alone():
    maps, masks, scores, regions, defects = category()
    one = folded(maps[:4], masks[:4], NAMES, scores, None, regions, defects)
    other = folded(maps[4:], masks[4:], NAMES, scores[4:], None, regions[4:], defects[4:])
    before = other.result().values
    one.merge(other)
    one.add(maps[5], masks[5], 1.0, True, defects[5], regions[5])
    assert other.result().values == before


@pytest.mark.parametrize("stretch", [lambda x: 8 * x, lambda x: x - 3, np.exp, np.sqrt])
def test_only_the_order_of_scores_matters(stretch):
    names = [name for name in NAMES if not name.startswith("spro")]
    maps, masks, scores, _, _ = category(levels=200)
    found = folded(stretch(maps), masks, names, 3 * scores).result().values
    expected = folded(maps, masks, names, scores).result().values
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_by_defect_each_kind_is_set_against_all_good_images():
    maps, masks, scores, regions, defects = category()
    result = folded(maps, masks, NAMES, scores, None, regions, defects).result()
    assert list(result.by_defect) == ["kind 0", "kind 1"]
    for kind, values in result.by_defect.items():
        chosen = [i for i, defect in enumerate(defects) if defect in ("good", kind)]
        of_kind = [regions[i] for i in chosen]
        exact = evaluate(maps[chosen], masks[chosen], scores[chosen], names=NAMES, regions=of_kind)
        assert values == pytest.approx(exact, abs=1e-5, nan_ok=True)


def test_sizes_may_differ():
    """A good image counts as one in AUPIMO's rate; in all else a pixel is a pixel."""
    maps, masks, scores, _, _ = category()
    names = ["pixel_auroc", "pixel_ap", "aupro", "iap"]
    cut = [(values[:, :20], mask[:, :20]) if i % 2 else (values, mask)
           for i, (values, mask) in enumerate(zip(maps, masks, strict=True))]  # fmt: skip
    rows = [np.concatenate([one.ravel() for one in kind]) for kind in zip(*cut, strict=True)]
    found = folded(*zip(*cut, strict=True), names, scores).result().values
    flat = evaluate(rows[0][None, None], rows[1][None, None], names=names[:2])
    assert {name: found[name] for name in flat} == pytest.approx(flat, abs=1e-5)
    good = np.linspace(0, 1, 250_000, dtype=np.float32).reshape(500, 500)
    accumulator = Accumulator(["aupimo"], 0)
    accumulator.add(good, None, 0, False, "good")
    accumulator.add(np.full((1, 1), 0.0), None, 0, False, "good")
    accumulator.add(np.full((2, 2), 0.99995), np.ones((2, 2)), 0, True, "bad")
    # Above 0.99995 lie 5e-5 of the first good image, which is half of the good images.
    assert accumulator.result().values["aupimo"] == pytest.approx(
        1 - math.log(2.5) / math.log(10), abs=2e-2
    )


def test_unknown_truth_counts_in_image_metrics_only():
    maps, masks, scores, _, defects = category()
    accumulator = folded(maps, masks, ["image_ap", "pixel_ap"], scores, None, None, defects)
    before = accumulator.result().values
    accumulator.add(maps[0] + 5, None, 9.0, True, "unknown")
    result = accumulator.result()
    assert result.values["pixel_ap"] == before["pixel_ap"]
    labels = np.append(masks.any(axis=(1, 2)), True)
    exact = evaluate(maps[[*range(9), 0]], masks[[*range(9), 0]], np.append(scores, 9), labels,
                     ["image_ap"])  # fmt: skip
    assert result.values["image_ap"] == pytest.approx(exact["image_ap"])
    assert math.isnan(result.by_defect["unknown"]["pixel_ap"])


def test_a_good_image_needs_no_mask():
    maps, masks, scores, _, _ = category()
    without = [mask if mask.any() else None for mask in masks]
    found = folded(maps, without, NAMES[:8], scores, masks.any(axis=(1, 2))).result().values
    assert found == folded(maps, masks, NAMES[:8], scores).result().values


def test_intervals_cover_the_value_and_narrow_with_more_images():
    widths = []
    for count in (9, 90):
        maps, masks, scores, _, _ = category(count=count)
        result = folded(maps, masks, NAMES[:10], scores, bootstrap=400).result()
        again = folded(maps, masks, NAMES[:10], scores, bootstrap=400).result()
        assert again.intervals == result.intervals
        assert "aupro_destseg" not in result.intervals
        for name, (low, high) in result.intervals.items():
            assert 0 <= low <= result.values[name] + 1e-9 <= high + 2e-9 <= 1 + 3e-9, name
        widths.append([np.diff(result.intervals[n])[0] for n in ("pixel_auroc", "aupro", "iap")])
    assert np.all(np.divide(*widths) > 1.5)  # sqrt(10) but for luck


def test_intervals_are_those_of_resampled_images():
    """Against exact metrics of sets drawn by another generator."""
    names = ["image_auroc", "pixel_auroc", "pixel_ap", "aupro"]
    maps, masks, scores, _, _ = category(count=30)
    result = folded(maps, masks, names, scores, bootstrap=1000).result()
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(400):
        chosen = np.concatenate([rng.integers(0, 10, 10), rng.integers(10, 30, 20)])
        exact = evaluate(maps[chosen], masks[chosen], scores[chosen], names=names)
        drawn.append(list(exact.values()))
    expected = np.quantile(drawn, [0.025, 0.975], axis=0).T
    for name, interval in zip(names, expected, strict=True):
        width = max(np.diff(interval)[0], 1e-6)
        assert result.intervals[name] == pytest.approx(tuple(interval), abs=0.2 * width), name


def test_curves_have_the_areas_of_their_metrics():
    maps, masks, scores, _, _ = category(count=30)
    result = folded(maps, masks, ["pixel_auroc", "aupro_1", "image_auroc"], scores).result()
    assert list(result.curves) == ["pixel_roc", "pixel_pr", "pro", "image_roc", "image_pr"]
    for curve, name in (("pixel_roc", "pixel_auroc"), ("pro", "aupro_1"),
                        ("image_roc", "image_auroc")):  # fmt: skip
        x, y = result.curves[curve]
        assert len(x) == len(y) <= MAX_POINTS
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(y, x) == pytest.approx(result.values[name], abs=1e-3)


def test_decimation_keeps_corners():
    x = np.concatenate([np.zeros(1000), np.linspace(0, 1, 100_000)])
    y = np.concatenate([np.linspace(0, 0.7, 1000), np.linspace(0.7, 1, 100_000) ** 3 + 0.357])
    thin = decimated(Curve(x, y))
    assert len(thin.x) <= MAX_POINTS
    assert (0.0, 0.7) in {(a, round(b, 6)) for a, b in zip(*thin, strict=True)}
    assert np.abs(np.interp(x[1000:], thin.x, thin.y) - y[1000:]).max() < 1e-4
    straight = decimated(Curve(np.linspace(0, 1, 999), np.linspace(0, 1, 999)))
    assert len(straight.x) < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anomaly_map": np.full((3, 3), np.nan)}, r"anomaly_map\[0, 0\] is nan"),
        ({"anomaly_map": np.full((3, 3), 1e39)}, r"anomaly_map as float32\[0, 0\] is inf"),
        ({"anomaly_map": np.zeros((1, 3, 3))}, r"anomaly_map has shape \(1, 3, 3\)"),
        ({"mask": np.zeros((3, 2))}, r"mask has shape \(3, 2\) but anomaly_map \(3, 3\)"),
        ({"mask": np.full((3, 3), 255)}, r"mask\[0, 0\] is 255"),
        ({"score": np.inf}, "score is inf"),
        ({"label": 0}, "label says good"),
        ({"regions": [(np.ones((3, 3), bool), 2)]}, r"regions\[0\] reaches outside"),
        ({"regions": [(np.eye(3) > 0, 0)]}, r"saturation of regions\[0\] is 0"),
        ({"regions": [(np.eye(2) > 0, 1)]}, r"regions\[0\] has shape \(2, 2\)"),
        ({"mask": None, "regions": []}, "regions come without a mask"),
    ],
)
def test_a_refused_image_changes_nothing(change, message):
    maps, masks, scores, regions, _ = category()
    accumulator = folded(maps, masks, NAMES, scores, regions=regions)
    before = accumulator.result().values
    image = {"anomaly_map": np.zeros((3, 3)), "mask": np.eye(3), "score": 0.5, "label": 1}
    with pytest.raises(MetricError, match=message) as caught:
        accumulator.add(**(image | {"defect": "x"} | change))
    assert "\n" not in str(caught.value)
    assert accumulator.result().values == before


def test_only_the_same_settings_merge():
    with pytest.raises(MetricError, match="other settings"):
        Accumulator(["aupro"]).merge(Accumulator(["aupro"], seed=1))


@pytest.mark.parametrize(
    ("images", "name", "reason"),
    [
        ([], "image_auroc", "no image is defective"),
        ([], "pixel_auroc", "no defective pixel"),
        ([(True, True)], "image_ap", "no image is good"),
        ([(False, False)], "aupro", "no defective pixel"),
        ([(True, False), (False, False)], "iap", "no defective pixel"),
        ([(True, True)], "aupimo", "no image is good"),
        ([(True, True), (False, False)], "aupimo", "too few pixels"),
        ([(True, True), (False, False)], "spro", "1 defective images came without regions"),
    ],
)
def test_undefined_with_its_reason(images, name, reason):
    accumulator = Accumulator([name])
    for label, defective in images:
        accumulator.add(np.eye(3), np.eye(3) * defective, 0.5, label, "x")
    result = accumulator.result()
    assert math.isnan(result.values[name])
    assert reason in result.reasons[name]
    assert name not in result.error_bounds and name not in result.intervals


def test_counting_in_threads_changes_no_bit():
    maps, masks, scores, regions, defects = category()
    alone = folded(maps, masks, NAMES, scores, None, regions, defects, bootstrap=20).result()
    together = Accumulator(NAMES, bootstrap=20)
    labels = masks.any(axis=(1, 2))
    with ThreadPoolExecutor(4) as pool:
        counted = pool.map(together.count, maps, masks, scores, labels, defects, regions)
        assert math.isnan(together.result().values["pixel_auroc"])  # nothing is folded in yet
        for one in counted:
            together.fold(one)
    assert pickle.dumps(together.result()) == pickle.dumps(alone)
