"""Tiles cover every pixel, their weights sum to one, and large maps need little memory."""

import tracemalloc

import numpy as np
import pytest

from stlm_jax.inference.tiling import blend_weights, blended_bands, tile_starts, tiles

CASES = [(1, 32), (31, 32), (32, 32), (33, 32), (56, 32), (57, 32), (1000, 64), (20000, 1024)]


@pytest.mark.parametrize(("length", "tile"), CASES)
def test_tiles_cover_the_line_and_overlap_by_a_quarter(length, tile):
    starts = tile_starts(length, tile)
    extent = min(tile, length)
    assert starts[0] == 0 and starts[-1] + extent == length
    overlaps = [a + tile - b for a, b in zip(starts, starts[1:], strict=False)]
    assert all(overlap >= tile // 4 - 1 for overlap in overlaps)
    assert len(starts) <= 1 or (len(starts) - 2) * 0.75 * tile + tile < length  # none to spare


@pytest.mark.parametrize(("length", "tile"), CASES)
def test_weights_sum_to_one_everywhere_and_none_is_zero(length, tile):
    total = np.zeros(length)
    for start, weights in zip(tile_starts(length, tile), blend_weights(length, tile), strict=True):
        assert (weights > 0).all()
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (32, 32), (100, 33), (77, 130), (32, 90)])
def test_tiles_of_a_map_give_the_map_again(shape):
    whole = np.random.default_rng(0).random((*shape, 2), np.float32)
    parts = (box.of(whole) for box in tiles(*shape, 32))
    rows, bands = zip(*blended_bands(*shape, 32, parts), strict=True)
    np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-6)
    assert list(rows) == np.cumsum([0, *map(len, bands[:-1])]).tolist()


def test_between_two_tiles_the_map_changes_gradually():
    values = iter([np.zeros((32, 32, 1), np.float32), np.ones((32, 32, 1), np.float32)])
    ((_, band),) = blended_bands(32, 56, 32, values)  # they share columns 24..31
    row = band[0, :, 0]
    assert (row[:24] == 0).all() and (row[32:] == 1).all()
    np.testing.assert_allclose(np.diff(row[23:33]), [0.0625, *[0.125] * 7, 0.0625], atol=1e-6)


def test_one_row_of_tiles_is_in_memory_at_a_time():
    height, width, tile = 20_000, 1_000, 256

    def maps():
        for box in tiles(height, width, tile):
            yield np.zeros((*box.shape, 1), np.float32)

    tracemalloc.start()
    try:
        count = sum(len(band) for _, band in blended_bands(height, width, tile, maps()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == height
    assert peak < 5 * tile * width * 4  # the whole map would be 78 rows of tiles
