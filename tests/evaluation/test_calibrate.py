"""Which images thresholds are estimated from, and when they are estimated anew."""

import numpy as np
import pytest
from miniature import write_config
from PIL import Image

from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.evaluation.calibrate import calibrate, load_or_calibrate
from stlm_jax.inference import calibration
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse


class GreyPredictor:
    """Finds of an image its grey value, and counts how often it is asked."""

    asked = 0

    def __call__(self, views):
        for view in views:
            type(self).asked += 1
            values = view.box.of(view.pixels[..., 0]).astype(np.float32) / 256
            yield ImageMaps(values, values.max(), values, values.max())


def write_greys(folder, greys):
    folder.mkdir(parents=True)
    for index, grey in enumerate(greys):
        Image.fromarray(np.full((12, 10, 3), grey, np.uint8)).save(folder / f"{index:03}.png")


def config(root, **keys):
    c = default()
    c.image_size = 32
    c.data.source, c.data.root, c.data.categories = "folder", str(root), ("nut",)
    c.calibration.update(keys)
    return c


def made(c):
    return calibrate(c, GreyPredictor(), "nut")


def test_held_out_images(tmp_path, capsys):
    """Of 40 images half are held out: the 20th of 20 is the quantile 0.95, by the formula."""
    write_greys(tmp_path / "nut/train/good", range(1, 41))
    c = config(tmp_path, held_out=0.5)
    found = made(c)
    held = [r for r in dataset.split_of(c, "nut", "held_out")]
    greys = sorted(int(record.image.stem) + 1 for record in held)
    assert (found.source, found.images) == ("held_out", 20)
    assert found.threshold == greys[19] / 256
    assert found.normaliser == pytest.approx((greys[19] - np.median(greys)) / 256)
    assert found.pixel_threshold == greys[19] / 256
    c.calibration.quantile, c.calibration.pixel_quantile = 0.6, 0.9
    found = made(c)
    assert found.threshold == greys[12] / 256  # 21 · 0.6 = 12.6
    assert found.pixel_threshold == greys[18] / 256  # 1024 pixels each: 0.9 · 20481 is in the 19th
    assert "optimistic" not in capsys.readouterr().err


def test_training_images_where_there_are_no_others(tmp_path, capsys):
    write_greys(tmp_path / "nut/train/good", [10, 30, 20])
    found = made(config(tmp_path))
    assert found.source == "training" and found.images == 3
    assert found.threshold == 30 / 256 and found.normaliser == 10 / 256
    printed = capsys.readouterr().err
    assert "nut: no image is held out; the threshold is from training images: optimistic" in printed
    assert "nut: 3 good images are too few for config.calibration.quantile=0.95" in printed
    assert "1 good image in 4" in printed


def test_validation_images_and_defects_among_them(tmp_path):
    write_greys(tmp_path / "nut/train/good", [1, 2, 3, 4])
    write_greys(tmp_path / "nut/validation/good", [10, 20, 30])
    c = config(tmp_path, held_out=0.5)
    found = made(c)
    assert (found.source, found.images, found.threshold) == ("validation", 3, 30 / 256)
    write_greys(tmp_path / "nut/validation/dent", [100])
    write_greys(tmp_path / "nut/validation/rust", [60, 200])
    found = made(c)
    assert (found.source, found.images, found.threshold) == ("f1max", 6, 45 / 256)
    assert found.normaliser == 25 / 256 and found.pixel_threshold == 30 / 256


def test_images_alike_leave_a_normaliser_above_zero(tmp_path):
    write_greys(tmp_path / "nut/train/good", [7, 7])
    found = made(config(tmp_path))
    assert found.normaliser > 0 and found.normalise([0, found.threshold, 1]).tolist() == [0, 0.5, 1]


def test_what_cannot_be_calibrated_is_named(tmp_path, capsys):
    write_greys(tmp_path / "nut/train/good", [7])
    c = config(tmp_path)

    class Diverged:
        def __call__(self, views):
            for _ in views:
                yield ImageMaps(np.full((2, 2), np.nan, np.float32), np.float32(np.nan))

    with pytest.raises(UserError, match="nut: the model's anomaly maps are not finite"):
        calibrate(c, Diverged(), "nut")
    (tmp_path / "nut/train/good/000.png").write_text("no image")
    with pytest.raises(UserError, match=r"cannot read .*000\.png"):
        made(c)
    c.data.on_error = "skip"
    with pytest.raises(UserError, match="none of 1 images to calibrate on can be read"):
        made(c)
    (tmp_path / "nut/train/good/000.png").unlink()
    folder = tmp_path / "run" / "nut"
    assert load_or_calibrate(folder, c, GreyPredictor(), "nut") is None
    assert "nut: no threshold, there is no good image but those to test on" in (
        capsys.readouterr().err
    )


def test_it_is_made_once_and_again_where_its_keys_changed(tmp_path):
    write_greys(tmp_path / "nut/train/good", [10, 30, 20])
    c, folder = config(tmp_path), tmp_path / "run"
    predictor = GreyPredictor()

    def ask():
        before = predictor.asked
        found = load_or_calibrate(folder, c, predictor, "nut")
        return found, predictor.asked - before

    assert ask()[1] == 3 and not folder.exists()  # a model that was not trained here
    folder.mkdir()
    first, looked = ask()
    assert looked == 3 and ask() == (first, 0)
    c.calibration.quantile = 0.5
    second, looked = ask()
    assert looked == 3 and second.threshold < first.threshold and ask() == (second, 0)
    assert calibration.load(folder, c) == second
    c.calibration.quantile = 0.95  # another quantile's threshold is one all the same
    assert calibration.load(folder, c) == second
    c.evaluate.score_top_k = 5  # but not of other scores
    assert calibration.load(folder, c) is None
    assert ask()[1] == 3


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("held_out=1", r"held_out=1\.0: must be 0 or more, below 1"),
        ("held_out=-0.1", r"held_out=-0\.1: must be 0 or more, below 1"),
        ("quantile=0", r"quantile=0\.0: must be above 0 and at most 1"),
        ("quantile=95", r"quantile=95\.0: must be above 0 and at most 1"),
        ("pixel_quantile=0.5", r"pixel_quantile=0\.5: must be in 0\.9\.\.1"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, option, said):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    with pytest.raises(UserError, match=rf"--config\.calibration\.{said}"):
        parse(["main", f"--config={file}", f"--config.calibration.{option}"])
