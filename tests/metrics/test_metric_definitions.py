"""Agreement with scikit-learn and with a threshold-by-threshold AUPRO, and invariances."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from stlm_jax.metrics import evaluate

NAMES = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
OVERLAP = ("aupro", "aupro_0.05", "aupro_0.01", "aupro_1")


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
    names = NAMES + OVERLAP
    assert evaluate(maps[order], masks[order], scores[order], names=names) == pytest.approx(
        evaluate(maps, masks, scores, names=names), abs=1e-9
    )


@given(sets())
@settings(max_examples=50, deadline=None)
def test_only_the_order_of_scores_matters(case):
    maps, masks, scores = case
    names = NAMES + OVERLAP
    stretched = np.exp(5 * maps.astype(np.float64)) - 7
    assert evaluate(stretched, masks, 3 * scores**3 + 1, names=names) == pytest.approx(
        evaluate(maps, masks, scores, names=names), abs=1e-9
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
