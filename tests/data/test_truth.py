"""Ground truth at other resolutions, and how much of a defect has to be found."""

import json

import numpy as np
import pytest
from trees import write_image

from stlm_jax.config import KEYS
from stlm_jax.data.records import Record, Saturation
from stlm_jax.data.sources import mvtec_loco
from stlm_jax.data.truth import metric_shape, read_truth
from stlm_jax.runtime.errors import UserError

DEFECTS = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 6,
     "relative_saturation": False},
    {"defect_name": "swapped", "pixel_value": 254, "saturation_threshold": 0.25,
     "relative_saturation": True},
    {"defect_name": "tiny", "pixel_value": 253, "saturation_threshold": 999,
     "relative_saturation": False},
]  # fmt: skip


def record(mask, label=1, saturations=()):
    return Record("image.png", mask, label, "spot" if label else "good", "c", "test", saturations)


def square(value, rows, columns, shape=(12, 16)):
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, columns] = value
    return pixels


def test_resolutions():
    own = (300, 500)
    assert metric_shape("image_size", 1024, own) == (1024, 1024)
    assert metric_shape("native", 1024, own) == own
    assert metric_shape("256", 1024, own) == (256, 256)
    for text, accepted in {"native": True, "16": True, "15": False, "-64": False, "": False,
                           "own": False, "1e3": False}.items():  # fmt: skip
        assert KEYS["evaluate.resolution"].rule.accepts(text) == accepted


def test_what_is_known_of_an_image_without_a_mask():
    assert read_truth(record(None), (4, 6)).mask is None
    good = read_truth(record(None, label=0), (4, 6))
    assert good.mask.shape == (4, 6) and not good.mask.any() and good.regions is None


def test_a_mask_is_taken_to_the_resolution_by_half_of_what_a_pixel_covers(tmp_path):
    mask = square(255, slice(2, 8), slice(3, 9))  # of 12 × 16
    path = write_image(tmp_path / "m.png", mask)
    own = read_truth(record(path), (12, 16)).mask
    assert own.dtype == bool
    np.testing.assert_array_equal(own, mask > 0)
    larger = read_truth(record(path), (24, 32)).mask
    np.testing.assert_array_equal(larger[5:15, 7:17], True)
    assert 0.8 * 4 * 36 < larger.sum() <= 1.2 * 4 * 36
    squashed = read_truth(record(path), (6, 8)).mask
    assert squashed[1:4, 2:4].all() and squashed[2, 1:5].all()  # half of columns 1 and 4
    assert not squashed[:, [0, 5, 6, 7]].any() and not squashed[[0, 4, 5]].any()


def test_loco_tells_each_defect_and_how_much_of_it_saturates(tmp_path):
    base = tmp_path / "cup"
    write_image(base / "train/good/000.png", square(0, 0, 0))
    write_image(base / "test/good/000.png", square(0, 0, 0))
    write_image(base / "test/logical_anomalies/000.png", square(9, 1, 1))
    truth = base / "ground_truth/logical_anomalies/000"
    write_image(truth / "000.png", square(255, slice(0, 4), slice(0, 6)))  # 24 pixels, 6 enough
    write_image(truth / "001.png", square(254, slice(2, 6), slice(4, 12)))  # 32 pixels, a quarter
    write_image(truth / "002.png", square(253, slice(10, 12), slice(0, 2)))  # 4 pixels, all
    write_image(truth / "003.png", square(100, slice(8, 10), slice(10, 12)))  # not in the file
    (base / "defects_config.json").write_text(json.dumps(DEFECTS))

    good, defective = mvtec_loco.scan(tmp_path, "cup").records[1:]
    assert good.saturations == () and len(defective.saturations) == 3
    mask, regions = read_truth(defective, (12, 16))
    assert [(int(region.sum()), enough) for region, enough in regions] == [
        (24, 6), (32, 8), (4, 4), (4, 4)
    ]  # fmt: skip
    np.testing.assert_array_equal(mask, np.logical_or.reduce([region for region, _ in regions]))
    assert mask.sum() == 24 + 32 - 4 + 4 + 4  # two overlap by 2 × 2

    doubled = read_truth(defective, (24, 32)).regions  # the same shares of larger regions
    for (small, enough), (large, of_large) in zip(regions, doubled, strict=True):
        assert of_large / large.sum() == pytest.approx(enough / small.sum())

    (base / "defects_config.json").write_text('[{"pixel_value": 255}]')
    with pytest.raises(UserError, match=r"defects_config\.json does not say how defects saturate"):
        mvtec_loco.scan(tmp_path, "cup")
    (base / "defects_config.json").unlink()
    plain = mvtec_loco.scan(tmp_path, "cup").records[2]
    assert plain.saturations == () and read_truth(plain, (12, 16)).regions is None


def test_a_defect_that_vanishes_at_the_resolution_is_no_region(tmp_path):
    path = write_image(tmp_path / "m.png", square(255, 0, 0))
    truth = read_truth(record(path, saturations=(Saturation(255, 1.0, True),)), (3, 4))
    assert truth.regions == [] and not truth.mask.any()
