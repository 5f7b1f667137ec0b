"""Quantiles that promise how rarely a good image is above, and the threshold of the best F1."""

import math

import numpy as np
import pytest

from stlm_jax.evaluation.thresholds import UpperQuantile, best_f1_threshold, conformal_rank


@pytest.mark.parametrize(
    ("count", "quantile", "rank"),
    [(19, 0.95, 19), (18, 0.95, 19), (20, 0.95, 20), (39, 0.95, 38), (99, 0.99, 99),
     (99, 0.07, 7), (4, 0.5, 3), (3, 0.5, 2), (5, 1.0, 6)],
)  # fmt: skip
def test_the_rank(count, quantile, rank):
    """By hand; 100 · 0.07 in floating point is a little more than 7."""
    assert conformal_rank(count, quantile) == rank


@pytest.mark.parametrize(("count", "quantile"), [(19, 0.95), (30, 0.9)])
def test_a_further_good_image_is_rarely_above(count, quantile):
    """The promise, on scores of a skewed law: at most 1 − quantile, and not much less."""
    scores = np.random.default_rng(0).gamma(2.0, size=(20_000, count + 1))
    rank = conformal_rank(count, quantile)
    thresholds = np.sort(scores[:, :-1])[:, rank - 1]
    share = np.mean(scores[:, -1] > thresholds)
    expected = 1 - rank / (count + 1)
    assert expected <= 1 - quantile
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 20_000))


@pytest.mark.parametrize("quantile", [0.9, 0.95, 0.999, 1.0])
def test_a_quantile_of_parts_is_that_of_all(quantile):
    rng = np.random.default_rng(1)
    maps = [rng.integers(0, 500, shape).astype(np.float32) for shape in ((40, 30), (7, 9), (1, 2))]
    found = UpperQuantile(quantile, 4000)  # some images could not be read
    for values in maps:
        found.add(values)
    everything = sorted(np.concatenate([values.ravel() for values in maps]).tolist())
    rank = min(math.ceil((len(everything) + 1) * quantile), len(everything))
    assert found.value() == everything[rank - 1]


def f1_above(threshold, good, defective):
    hits, false = np.sum(defective > threshold), np.sum(good > threshold)
    return 2 * hits / (hits + false + len(defective))


def test_the_threshold_of_the_best_f1():
    rng = np.random.default_rng(2)
    for _ in range(200):
        good, defective = (
            (rng.integers(0, 12, rng.integers(1, 9)) / 12).astype(np.float32) for _ in range(2)
        )
        threshold = best_f1_threshold(good, defective)
        tried = [f1_above(t, good, defective) for t in [-1, *good.tolist(), *defective.tolist()]]
        assert f1_above(threshold, good, defective) == max(tried)
    # The specification's vector: 0.8571 where all are found, the lowest at 0.1.
    good, defective = np.float32([0.1]), np.float32([0.5, 0.9, 0.1])
    threshold = best_f1_threshold(good, defective)
    assert f1_above(threshold, good, defective) == pytest.approx(0.8571, abs=1e-4)
    assert threshold == pytest.approx(0.1)
    apart = best_f1_threshold(np.float32([0.1, 0.25]), np.float32([0.75]))
    assert apart == 0.5  # in the middle
    first = np.float32([0.5])
    for _ in range(2):  # between neighbours there is no middle, which is rounded up or down
        second = np.nextafter(first, np.float32(1))
        assert f1_above(best_f1_threshold(first, second), first, second) == 1
        first = second
