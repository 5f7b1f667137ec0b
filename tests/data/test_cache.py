"""Decoded images in memory up to a budget; beyond it the same images, decoded when asked for."""

import numpy as np
import pytest
from PIL import Image

from stlm_jax.data.cache import ImageCache
from stlm_jax.data.images import ImageError, load_images
from stlm_jax.data.loader import TrainLoader
from stlm_jax.data.reader import ImageReader
from stlm_jax.data.records import Record

SIZE = 8
BYTES = SIZE * SIZE * 3


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{index}.png" for index in range(7)]
    for path in files:
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    return files


@pytest.fixture
def expected(paths):
    return load_images([Record(path, None, 0, "good", "c", "train") for path in paths], SIZE)


def cache(paths, images, **options):
    return ImageCache(paths, ImageReader(SIZE, **options), images * BYTES)


@pytest.mark.parametrize("budget", [0, 1, 3.99, 7, 1000, float("inf")])
def test_images_are_the_same_under_every_budget(paths, expected, budget):
    found = cache(paths, budget)
    assert len(found) == 7 and found.kept == int(min(budget, 7))
    np.testing.assert_array_equal([found[index] for index in range(7)], expected)


def test_what_is_kept_is_not_read_again(paths, expected):
    found = cache(paths, 4)
    for path in paths:
        path.unlink()
    np.testing.assert_array_equal([found[index] for index in range(4)], expected[:4])
    with pytest.raises(ImageError, match=r"4\.png does not exist"):
        found[4]


def test_beyond_the_budget_nothing_is_read_at_first(paths):
    paths[5].write_bytes(b"")
    assert len(cache(paths, 5)) == 7
    with pytest.raises(ImageError, match=r"5\.png"):
        cache(paths, 6)


@pytest.mark.parametrize("budget", [0, 2, 3, 6, 7])
def test_bad_files_are_left_out_under_every_budget(paths, expected, budget, capsys):
    for index in (1, 5):
        paths[index].write_bytes(b"")
    found = cache(paths, budget, skip=True)
    assert len(found) == 5 and found.kept == min(budget, 5)
    np.testing.assert_array_equal([found[i] for i in range(5)], expected[[0, 2, 3, 4, 6]])
    assert "2 of 7 images were left out" in capsys.readouterr().err


def batches(images, steps=9):
    loader = TrainLoader(images, 2, seed=4)
    found = [next(loader)["image"] for _ in range(steps)]
    loader.close()
    return found


def test_batches_do_not_depend_on_the_budget(paths, expected):
    whole = batches(expected)
    for budget in (0, 3, 7):
        np.testing.assert_array_equal(batches(cache(paths, budget)), whole)


def test_padding_is_kept_too(paths):
    found = cache(paths, 3, geometry="pad")
    for index in (0, 6):
        assert (found[index][-1] == 114).all() and not (found[index][-2] == 114).all()


def test_a_file_that_vanishes_during_training_is_named(paths):
    loader = TrainLoader(cache(paths, 0), 7, seed=0)
    next(loader)
    for path in paths:
        path.unlink()
    with pytest.raises(ImageError, match=r"\d\.png does not exist"):
        for _ in range(20):  # some batches are decoded ahead
            next(loader)
