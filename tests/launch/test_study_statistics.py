"""Paired differences against scipy's, by hand, and by how often their intervals hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from launch.study.statistics import (
    NEITHER,
    NO_IMAGES,
    ONE_SEED,
    Difference,
    holm,
    paired_difference,
)


@pytest.mark.parametrize("number", [2, 3, 5, 12])
@pytest.mark.parametrize("without", [None, "constant"])
def test_without_variance_over_images_it_is_the_paired_t_test(number, without):
    rng = np.random.default_rng(number)
    ours, theirs = rng.normal(0.9, 0.01, (2, number, 4))
    replicates = None
    if without:  # each seed's difference is the same on all sets of images
        replicates = [np.ones((number, 20)) * (ours - theirs)[:, [c]] for c in range(4)]
    found = paired_difference(ours - theirs, replicates)
    expected = stats.ttest_rel(ours.mean(axis=1), theirs.mean(axis=1))
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.estimate == pytest.approx((ours - theirs).mean()) and found.seeds == number
    assert found.remark == ("" if without else NO_IMAGES)


def test_one_seed_is_of_images_alone():
    drawn = np.random.default_rng(0).normal(0.02, 0.005, 400)
    found = paired_difference(np.array([[0.02]]), [drawn[None]])
    interval = stats.norm.interval(0.95, 0.02, drawn.std(ddof=1))
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.02 / drawn.std(ddof=1)), rel=1e-9)
    assert found.remark == ONE_SEED and math.isnan(found.of_seeds) and not found.is_noise
    found = paired_difference(np.array([[0.02]]))
    assert found.remark == NEITHER and math.isnan(found.low) and found.is_noise


def test_both_parts_by_hand():
    """Two categories; the seeds' deviation and the images' are 0.03 and 0.02 of the mean."""
    differences = np.array([[0.00, 0.02], [0.06, 0.08], [0.03, 0.05]])  # means 0.01, 0.07, 0.04
    a = np.array([-1, 1, -1, 1]) * 0.03 * math.sqrt(3 / 4)  # sample deviation 0.03
    b = np.array([-1, 1, -1, 1]) * 0.04 * math.sqrt(3 / 4)
    drawn = [np.tile(a, (3, 1)), np.tile(b, (3, 1))]
    found = paired_difference(differences, drawn)
    seeds, images = 0.03**2 / 3, (0.03**2 + 0.04**2) / 4
    assert found.of_seeds == pytest.approx(math.sqrt(seeds))
    assert found.of_images == pytest.approx(math.sqrt(images)) == pytest.approx(0.025)
    freedom = (seeds + images) ** 2 / (seeds**2 / 2)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(seeds + images)
    assert (found.low, found.high) == pytest.approx((0.04 - reach, 0.04 + reach), rel=1e-9)
    assert found.remark == "" and found.is_noise


def test_replicates_of_a_setting_and_its_baseline_pair_over_seeds():
    """What two seeds do in opposite ways on the same images is no variance over images."""
    drawn = np.random.default_rng(0).normal(0, 0.01, 100)
    opposite = paired_difference(np.zeros((2, 1)), [np.stack([drawn, -drawn])])
    assert opposite.of_images == pytest.approx(0, abs=1e-12)
    alike = paired_difference(np.zeros((2, 1)), [np.stack([drawn, drawn])])
    assert alike.of_images == pytest.approx(drawn.std(ddof=1))


def test_no_difference_at_all_and_undefined():
    same = paired_difference(np.zeros((3, 2)), [np.zeros((3, 9))] * 2)
    assert (same.estimate, same.low, same.high, same.p) == (0, 0, 0, 1) and same.is_noise
    for nothing in (np.zeros((0, 1)), np.array([[0.1], [math.nan]])):
        found = paired_difference(nothing)
        assert math.isnan(found.estimate) and found.is_noise and found.seeds == 0
    drawn = np.full((2, 10), math.nan)
    assert paired_difference(np.array([[0.1], [0.2]]), [drawn]).remark == NO_IMAGES
    drawn[:, :8] = np.arange(8) / 100
    found = paired_difference(np.array([[0.1], [0.2]]), [drawn])
    assert found.of_images == pytest.approx(np.arange(8).std(ddof=1) / 100)


@pytest.mark.parametrize(
    ("low", "high", "noise"),
    [(0.1, 0.2, False), (-0.2, -0.1, False), (-0.1, 0.1, True), (0, 0.1, True)],
)
def test_noise_is_what_zero_lies_in(low, high, noise):
    assert Difference(0.1, low, high, 0.5, 3, 0, 0).is_noise == noise


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Three seeds, 40 images that are hard for both settings alike; the true difference is known.

    The interval of two settings that are not paired is several times wider.
    """
    rng = np.random.default_rng(0)
    truth, images, rounds, covered, widths = 0.01, 40, 600, 0, []
    for _ in range(rounds):
        counts = rng.multinomial(images, np.full(images, 1 / images), 100)
        hard = rng.normal(0, 0.15, images)  # alike for all models
        settings = []
        for effect in (truth, 0.0):
            taste = rng.normal(0, 0.02, images)  # of a setting on an image
            seeds = rng.normal(0, 0.005, (3, 1)) + rng.normal(0, 0.02, (3, images))
            settings.append(0.8 + effect + hard + taste + seeds)
        ours, theirs = settings
        drawn = [values @ counts.T / images for values in settings]
        found = paired_difference(
            (ours - theirs).mean(axis=1, keepdims=True), [drawn[0] - drawn[1]]
        )
        covered += found.low <= truth <= found.high
        apart = sum(
            values.mean(axis=1).var(ddof=1) / 3 + sets.mean(axis=0).var(ddof=1)
            for values, sets in zip(settings, drawn, strict=True)
        )
        widths.append((found.high - found.low, 2 * stats.norm.ppf(0.975) * math.sqrt(apart)))
    assert covered / rounds >= 0.92
    paired, unpaired = np.mean(widths, axis=0)
    assert unpaired > 3 * paired


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}
