"""What binning changes, on maps like those of a model and on maps that are hard to bin."""

import subprocess
import sys

import numpy as np
import pytest
from folding import folded
from scipy import ndimage

from stlm_jax.metrics import evaluate
from stlm_jax.metrics.runs import BINS, Runs, without_negative_zero

NAMES = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_0.05", "iap", "iap90", "aupimo")
KINDS = {
    "plain": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-(2 * z - 4))),
    "saturated at 1": lambda z: 1 / (1 + np.exp(-(4 * z + 8).astype(np.float32))),
    "small": lambda z: np.exp(2 * z - 20),
    "around 1000": lambda z: 1000 + z / 100,
}


def smooth_category(count=10, size=320):
    rng = np.random.default_rng(0)
    masks = np.zeros((count, size, size), bool)
    for mask in masks[1::2]:
        for row, column in rng.integers(0, size - 40, (3, 2)):
            mask[row : row + rng.integers(5, 40), column : column + rng.integers(5, 40)] = True
    noise = rng.normal(size=masks.shape)
    logits = np.stack([ndimage.gaussian_filter(one, 5) for one in noise])
    return logits / logits.std() + 2 * ndimage.gaussian_filter(masks * 1.0, (0, 3, 3)), masks


@pytest.mark.parametrize("kind", KINDS)
def test_within_the_bound_that_is_told(kind):
    logits, masks = smooth_category()
    maps = KINDS[kind](logits).astype(np.float32)
    exact = evaluate(maps, masks, names=NAMES)
    result = folded(maps, masks, NAMES).result()
    for name, value in result.values.items():
        if name in result.reasons:
            assert kind in ("saturated at 1", "around 1000") and name == "aupimo"
            continue
        apart = abs(value - exact[name])
        assert apart <= result.error_bounds[name] + 1e-12, name
        if kind == "around 1000":  # where float32 itself is coarse, the bound must say so
            assert apart <= 1e-5 or result.error_bounds[name] > 1e-5, name
        else:
            assert apart <= 1e-5, name


def test_bins_keep_the_order_of_every_float():
    rng = np.random.default_rng(0)
    sides = [1 - 10 ** -rng.uniform(0, 9, 5000), 1 + 10 ** -rng.uniform(0, 9, 5000)]
    tiny = 10 ** -rng.uniform(0, 45, 5000)
    corners = np.array([0, -0.0, 0.5, 1, 2, 3.4e38, -3.4e38, 1e-45, -1e-45], np.float32)
    around = np.concatenate([np.nextafter(corners[:7], np.float32(s)) for s in (-9, 9)])
    values = np.concatenate([*sides, tiny, -tiny, rng.normal(0, 30, 5000), corners, around])
    rising = np.unique(without_negative_zero(values))
    each = [Runs.of(rising[i : i + 1]) for i in range(len(rising))]
    places = [256 * one.bins[0] + one.lowest[0] for one in each]
    assert np.all(np.diff(places) > 0)
    together = Runs.of(rising)
    assert np.all(np.diff(together.bins) > 0) and together.counts.sum() == len(rising)
    assert together.bins[0] >= 0 and together.bins[-1] < BINS
    assert [one.bins[0] for one in each] == list(np.repeat(together.bins, together.counts))
    size = np.minimum(np.abs(rising[1:]), np.abs(rising[:-1]))
    same = (np.diff([one.bins[0] for one in each]) == 0) & (size > 1e-37)
    assert np.all(np.diff(rising)[same] <= 2.0**-15 * size[same])


@pytest.mark.slow
def test_500_maps_of_1024_pixels_stay_within_1500_megabytes():
    command = [sys.executable, "-m", "benchmarks.metrics", "--memory", "--images=500"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(printed.split("at most ")[1].split()[0]) * 2**20 < 1.5e9
