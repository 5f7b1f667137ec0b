"""Agreement with scikit-learn and with binarising at every threshold, and invariances."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from stlm_jax.metrics import evaluate
from stlm_jax.metrics.inputs import Inputs
from stlm_jax.metrics.overlap_curves import log_area

NAMES = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
OVERLAP = ("aupro", "aupro_0.05", "aupro_0.01", "aupro_1")
INSTANCES = ("iap", "iap90")


@st.composite
def sets(draw):
    """Small categories with few distinct scores, so that ties are the rule."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(2, 5), st.integers(1, 8), st.integers(1, 8)))
    levels = draw(st.sampled_from([1, 2, 5, 40, 10_000]))
    maps = generator.integers(0, levels, shape) / levels - draw(st.sampled_from([0.0, 0.5]))
    masks = generator.random(shape) < draw(st.sampled_from([0.05, 0.3, 0.7]))
    masks[0] = False
    assume(masks.any())
    scores = generator.integers(0, levels, shape[0]) / levels
    return maps.astype(draw(st.sampled_from([np.float32, np.float64]))), masks, scores


def regions_of(mask):
    """8-connected regions by flood fill, each a list of (row, column)."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        region, front = [], [left.pop()]
        while front:
            y, x = front.pop()
            region.append((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            front.extend(around)
        yield region


def aupro_by_thresholds(maps, masks, limit):
    """The area, from one binarisation of all maps for each distinct value."""
    regions = [
        (index, *zip(*region, strict=True))
        for index, mask in enumerate(masks)
        for region in regions_of(mask)
    ]
    area, last_rate, last_overlap = 0.0, 0.0, 0.0
    for threshold in np.unique(maps)[::-1]:
        detected = maps >= threshold
        rate = detected[~masks].mean()
        overlap = np.mean([detected[i, ys, xs].mean() for i, ys, xs in regions])
        if rate > limit:
            at_limit = last_overlap + (overlap - last_overlap) * (limit - last_rate) / (
                rate - last_rate
            )
            return (area + (limit - last_rate) * (last_overlap + at_limit) / 2) / limit
        area += (rate - last_rate) * (last_overlap + overlap) / 2
        last_rate, last_overlap = rate, overlap
    return area / limit


def iap_by_regions(maps, masks, recall_wanted=0.9):
    """IAP and IAP@90 from the threshold of every region: the most that over half of it reaches."""
    thresholds = []
    for index, mask in enumerate(masks):
        for region in regions_of(mask):
            scores = [maps[index, y, x] for y, x in region]
            halves = [t for t in scores if sum(s >= t for s in scores) > len(scores) / 2]
            thresholds.append(max(halves))
    precision = {t: masks[maps >= t].mean() for t in thresholds}
    best = [max(p for other, p in precision.items() if other <= t) for t in sorted(thresholds)]
    recall = [1 - index / len(thresholds) for index in range(len(thresholds))]
    wanted = [p for p, r in zip(best, recall, strict=True) if r >= recall_wanted - 1e-9]
    return np.mean(best), wanted[-1]


def spro_by_thresholds(maps, masks, regions, limit):
    """The area under mean saturated overlap, from one binarisation for each distinct value."""
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        detected = maps >= threshold
        overlaps = [
            min((detected[index] & region).sum() / saturation, 1)
            for index, of_image in enumerate(regions)
            for region, saturation in of_image
        ]
        points.append((detected[~masks].mean(), np.mean(overlaps)))
    area = 0.0
    for (x, y), (next_x, next_y) in pairs(points):
        end = min(next_x, limit)
        if end > x:
            at_end = y + (next_y - y) * (end - x) / (next_x - x)
            area += (end - x) * (y + at_end) / 2
    return area / limit


def pairs(values):
    return zip(values[:-1], values[1:], strict=True)


@given(sets())
@settings(max_examples=100, deadline=None)
def test_instance_precision_equals_going_region_by_region(case):
    maps, masks, _ = case
    found = evaluate(maps, masks, names=INSTANCES)
    assert (found["iap"], found["iap90"]) == pytest.approx(iap_by_regions(maps, masks), abs=1e-9)


@given(sets(), st.floats(0.1, 1.5), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=100, deadline=None)
def test_saturated_overlap_equals_binarising_at_every_threshold(case, share, limit):
    maps, masks, _ = case
    regions, saturated = [], []
    for mask in masks:
        of_image = []
        for region in regions_of(mask):
            one = np.zeros(mask.shape, bool)
            one[tuple(zip(*region, strict=True))] = True
            of_image.append((one, share * len(region)))
        regions.append(of_image)
        saturated.append([(one, min(pixels, one.sum())) for one, pixels in of_image])
    name = f"spro_{limit}"
    found = evaluate(maps, masks, names=[name], regions=regions)[name]
    assert found == pytest.approx(spro_by_thresholds(maps, masks, saturated, limit), abs=1e-9)


def test_saturated_at_their_areas_regions_make_aupro():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((3, 20, 20)), np.zeros((3, 20, 20), bool)
    masks[1, 2:5, 3:9] = masks[2, 10:12, 3:5] = True
    regions = [[], [(masks[1], 18)], [(masks[2], 4)]]
    found = evaluate(maps, masks, names=["spro_0.3", "aupro"], regions=regions)
    assert found["spro_0.3"] == pytest.approx(found["aupro"], abs=1e-12)
    overlapping = [[], [(masks[1], 5), (masks[1], 18)], [(masks[2], 1)]]
    found = evaluate(maps, masks, names=["spro_0.3"], regions=overlapping)["spro_0.3"]
    assert found == pytest.approx(spro_by_thresholds(maps, masks, overlapping, 0.3), abs=1e-9)


@pytest.mark.parametrize("levels", [12, 100_000])
@pytest.mark.parametrize(("lower", "upper"), [(0.02, 0.3), (0.2, 0.9)])
def test_per_image_overlap_is_the_mean_of_images_taken_alone(levels, lower, upper):
    """Every image by itself, by all thresholds of the good images, in the logarithm of the rate."""
    rng = np.random.default_rng(levels)
    maps = rng.integers(0, levels, (5, 8, 8)) / levels
    masks = rng.random(maps.shape) < 0.3
    masks[:2] = False
    maps[0, 0, 0] = 2  # a single false positive, so that the lowest rate is defined
    thresholds = np.unique(maps)[::-1]
    rates = np.array([(maps[:2] >= t).mean() for t in thresholds])
    areas = []
    for values, mask in zip(maps[2:], masks[2:], strict=True):
        recall = np.array([(values[mask] >= t).mean() for t in thresholds])
        grid = np.linspace(np.log(lower), np.log(upper), 200_001)  # fine enough for a plain mean
        areas.append(np.interp(grid, np.log(rates), recall).mean())
    found = Inputs(maps, masks, weights=["share"]).share_points
    assert log_area(found, "share", lower, upper) == pytest.approx(np.mean(areas), abs=1e-4)


def test_the_published_code_agrees_on_smooth_maps():
    rng = np.random.default_rng(0)
    maps = np.stack([ndimage.gaussian_filter(rng.random((96, 96)), 3) for _ in range(4)])
    masks = np.zeros(maps.shape, bool)
    masks[0, 10:30, 20:45] = masks[2, 50:80, 60:90] = masks[2, 5:15, 5:15] = True
    maps += 0.04 * masks
    found = evaluate(maps, masks, names=["aupro", "aupro_destseg"])
    assert 0.3 < found["aupro"] < 0.9
    assert found["aupro_destseg"] == pytest.approx(found["aupro"], abs=3e-3)


@given(sets())
@settings(max_examples=150, deadline=None)
def test_ranking_metrics_equal_scikit_learn(case):
    maps, masks, scores = case
    found = evaluate(maps, masks, scores, names=NAMES)
    labels = masks.any(axis=(1, 2))
    for level, truth, values in (
        ("image", labels, scores),
        ("pixel", masks.ravel(), maps.ravel()),
    ):
        precision, recall, _ = precision_recall_curve(truth, values)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        expected = {
            f"{level}_auroc": roc_auc_score(truth, values),
            f"{level}_ap": average_precision_score(truth, values),
            f"{level}_f1max": f1.max(),
        }
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-9), name


@given(sets())
@settings(max_examples=150, deadline=None)
def test_aupro_equals_binarising_at_every_threshold(case):
    maps, masks, _ = case
    found = evaluate(maps, masks, names=OVERLAP)
    for name, limit in zip(OVERLAP, (0.3, 0.05, 0.01, 1.0), strict=True):
        assert found[name] == pytest.approx(aupro_by_thresholds(maps, masks, limit), abs=1e-9), name


@given(sets(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_order_of_images_does_not_matter(case, random):
    maps, masks, scores = case
    order = random.sample(range(len(maps)), len(maps))
    names = NAMES + OVERLAP + INSTANCES + ("aupro_destseg",)
    assert evaluate(maps[order], masks[order], scores[order], names=names) == pytest.approx(
        evaluate(maps, masks, scores, names=names), abs=1e-9, nan_ok=True
    )


@given(sets())
@settings(max_examples=50, deadline=None)
def test_only_the_order_of_scores_matters(case):
    maps, masks, scores = case
    names = NAMES + OVERLAP + INSTANCES + ("aupro_destseg",)
    stretched = np.exp(5 * maps.astype(np.float64)) - 7
    assert evaluate(stretched, masks, 3 * scores**3 + 1, names=names) == pytest.approx(
        evaluate(maps, masks, scores, names=names), abs=1e-9, nan_ok=True
    )


def test_every_region_counts_the_same_whatever_its_size():
    """A found pixel and a missed block: half by AUPRO, far less by pixel recall."""
    maps = np.zeros((1, 20, 20))
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 0, 0] = masks[0, 10:, 10:] = True
    maps[0, 0, 0] = 1
    maps[0, 10:, 10:] = -1
    found = evaluate(maps, masks, names=["aupro", "pixel_auroc"])
    assert found["aupro"] == pytest.approx(0.5)
    assert found["pixel_auroc"] == pytest.approx(1 / 101)
