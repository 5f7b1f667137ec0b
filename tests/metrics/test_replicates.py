"""Replicate b counts the same images whatever a model says of them."""

import numpy as np
import pytest
from folding import folded
from sklearn.metrics import roc_auc_score

from stlm_jax.metrics import Accumulator
from stlm_jax.metrics.bootstrap import draw

NAMES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
LABELS = np.array([False, True, True, False, True, False, True, True, False, True, False, True])


def maps_of(seed, size=16):
    """Maps float32 and masks of a model; the masks are the same for every seed."""
    masks = np.zeros((len(LABELS), size, size), bool)
    for index in np.flatnonzero(LABELS):
        masks[index, index % 8 : index % 8 + 6, 2:9] = True
    noise = np.random.default_rng(seed).normal(size=masks.shape)
    return (noise + 1.5 * masks).astype(np.float32), masks


def result_of(maps, masks, scores, order, bootstrap=60, names=NAMES, places=None):
    """The metrics of images that come in an order, each with its place."""
    accumulator = Accumulator(names, bootstrap)
    for index in order:
        place = index if places is None else places[index]
        label = bool(LABELS[index])
        kind = f"kind {index % 3}" if label else "good"
        image = maps[index], masks[index], scores[index], label, kind
        accumulator.add(*image, place=place)
    return accumulator.result()


def test_the_order_of_arrival_does_not_matter():
    maps, masks = maps_of(0)
    scores = maps.max(axis=(1, 2))
    one = result_of(maps, masks, scores, range(12))
    other = result_of(maps, masks, scores, np.random.default_rng(1).permutation(12))
    assert set(one.replicates) == set(NAMES)
    for name, values in one.replicates.items():
        assert values.shape == (60,) and values.dtype == np.float64
        np.testing.assert_array_equal(values, other.replicates[name], err_msg=name)


def test_two_models_replicates_are_of_the_same_images():
    """A model that is wrong on one image, whichever, loses just where that image is drawn."""
    maps, masks = maps_of(0)
    counts = draw(LABELS, 60, 0)[1:]
    for wrong in np.flatnonzero(LABELS)[:3]:
        scores = LABELS.astype(float) + np.random.default_rng(wrong).uniform(0, 0.4, 12)
        scores[wrong] = -1.0
        found = result_of(maps, masks, scores, range(12)).replicates["image_auroc"]
        expected = 1 - counts[:, wrong] / LABELS.sum()
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_replicate_is_the_metric_of_its_images():
    """Against scikit-learn on each drawn multiset; maps of few levels lose nothing in bins."""
    maps, masks = maps_of(3)
    maps = np.round(4 * maps) / 4
    scores = np.random.default_rng(2).normal(size=12) + LABELS
    result = result_of(maps, masks, scores, range(12))
    for b, count in enumerate(draw(LABELS, 60, 0)[1:].astype(int)):
        drawn = np.repeat(np.arange(12), count)
        assert sorted(LABELS[drawn]) == sorted(LABELS)
        images = roc_auc_score(LABELS[drawn], scores[drawn])
        pixels = roc_auc_score(masks[drawn].ravel(), maps[drawn].ravel())
        assert result.replicates["image_auroc"][b] == pytest.approx(images, abs=1e-12)
        assert result.replicates["pixel_auroc"][b] == pytest.approx(pixels, abs=1e-12)


def test_places_may_have_gaps_and_merge():
    maps, masks = maps_of(0)
    scores = maps.max(axis=(1, 2))
    whole = result_of(maps, masks, scores, range(12))
    parts = []
    for some in (range(1, 12, 2), range(0, 12, 2)):
        parts.append(Accumulator(NAMES, 60))
        for index in some:
            label = bool(LABELS[index])
            image = maps[index], masks[index], scores[index], label, "x"
            parts[-1].add(*image, place=10 * index)
    parts[0].merge(parts[1])
    for name, values in parts[0].result().replicates.items():
        np.testing.assert_allclose(values, whole.replicates[name], atol=1e-12, err_msg=name)


def test_intervals_are_the_replicates_quantiles():
    maps, masks = maps_of(0)
    result = result_of(maps, masks, maps.max(axis=(1, 2)), range(12), 200)
    assert set(result.intervals) == set(NAMES)
    for name, interval in result.intervals.items():
        values = result.replicates[name]
        assert values.min() >= 0 and values.max() <= 1
        assert interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-15)


def test_what_cannot_be_replicated_has_no_replicates():
    maps, masks = maps_of(0)
    scores = maps.max(axis=(1, 2))
    result = result_of(maps, masks, scores, range(12), names=("aupro", "aupro_destseg"))
    assert set(result.replicates) == {"aupro"}
    good = folded(maps[~LABELS], masks[~LABELS], NAMES, bootstrap=9).result()
    assert good.replicates == {} and good.intervals == {}
    assert folded(maps, masks, NAMES, scores).result().replicates == {}
