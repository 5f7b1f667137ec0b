"""Regions of maps that were made by hand."""

import numpy as np

from stlm_jax.inference.regions import regions_of


def test_regions_of_a_hand_made_map():
    drawn = [
        ".1....2.",
        ".1....33",  # columns 6 and 7
        "..4.....",  # touches the first at a corner
        "........",
        "5......6",
    ]
    levels = {".": 0.1, "1": 0.5, "2": 0.6, "3": 0.9, "4": 0.7, "5": 0.51, "6": 0.2}
    values = np.array([[levels[c] for c in line] for line in drawn], np.float32)
    found = regions_of(values, 0.3)
    peaks = np.array([region.pop("peak") for region in found], np.float32)
    np.testing.assert_array_equal(peaks, np.array([0.7, 0.9, 0.51], np.float32))
    assert found == [
        {"box": [1, 0, 2, 3], "area": 3},
        {"box": [6, 0, 2, 2], "area": 3},
        {"box": [0, 4, 1, 1], "area": 1},
    ]
    assert [r["area"] for r in regions_of(values, 0.3, min_area=2)] == [3, 3]
    assert regions_of(values, 0.9) == []  # above, not at, the threshold
    (whole,) = regions_of(values, 0.05)
    assert (whole["box"], whole["area"]) == ([0, 0, 8, 5], 40)


def test_many_regions_are_those_of_a_flood_fill():
    values = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    left, expected = values > 0.75, []
    for start in zip(*np.nonzero(left), strict=True):
        if not left[start]:
            continue
        pixels, pending = [], [start]
        left[start] = False
        while pending:
            y, x = pending.pop()
            pixels.append((y, x))
            for v in range(max(0, y - 1), min(40, y + 2)):
                for u in range(max(0, x - 1), min(60, x + 2)):
                    if left[v, u]:
                        left[v, u] = False
                        pending.append((v, u))
        down, across = zip(*pixels, strict=True)
        box = (min(across), min(down), max(across) + 1 - min(across), max(down) + 1 - min(down))
        expected.append((*map(int, box), len(pixels), float(values[down, across].max())))
    found = regions_of(values, 0.75)
    assert len(expected) > 50
    assert sorted((*r["box"], r["area"], r["peak"]) for r in found) == sorted(expected)
    assert [r["area"] for r in found] == sorted((e[4] for e in expected), reverse=True)
