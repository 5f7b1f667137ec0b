"""Thresholds: what they are estimated from, and what they promise."""

import json
import math
import pickle

import numpy as np
import pytest
from miniature import write_config
from PIL import Image

from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.evaluation.calibrate import calibrate, load_or_calibrate
from stlm_jax.evaluation.error_rates import ErrorRates
from stlm_jax.evaluation.thresholds import UpperQuantile, best_f1_threshold, conformal_rank
from stlm_jax.inference import calibration
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.metrics import MetricError
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.weights.description import Calibration

# --- quantiles ---


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


# --- which images ---


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


# --- the file ---

SOME = Calibration(0.1, 1 / 3, 0.7, "held_out", 8)


def test_the_normalised_score():
    scores = np.float32([-5, 0.1, 0.4, 1e6])
    expected = [1 / (1 + math.exp(3 * (0.1 - float(score)))) for score in scores]
    np.testing.assert_allclose(SOME.normalise(scores), expected, rtol=1e-12)
    assert SOME.normalise(0.1) == 0.5
    threshold = float(np.float32(0.3))
    above = np.nextafter(np.float32(threshold), np.float32(1))
    assert Calibration(threshold, 1.0, 0, "training", 1).normalise(above) > 0.5


def test_it_is_stored_whole_and_read_back(tmp_path):
    assert calibration.load(tmp_path) is None
    calibration.store(tmp_path, SOME)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    assert calibration.load(tmp_path) == SOME  # to the last bit
    assert json.loads((tmp_path / "calibration.json").read_text())["source"] == "held_out"
    calibration.forget(tmp_path)
    calibration.forget(tmp_path)
    assert calibration.load(tmp_path) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", "high"), ("normaliser", 0), ("source", "guess"), ("images", None), ("x", 1),
     ("threshold", math.nan)],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, key, value):
    calibration.store(tmp_path, SOME)
    path = tmp_path / "calibration.json"
    content = json.loads(path.read_text())
    del content["images"]
    path.write_text(json.dumps(content | ({} if value is None else {key: value, "images": 8})))
    with pytest.raises(UserError, match=r"calibration\.json: not a calibration .*delete it"):
        calibration.load(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="not a calibration"):
        calibration.load(tmp_path)


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


# --- rates ---


def counted(images):
    rates = ErrorRates(SOME)
    for image in images:
        rates.add(*image)
    return rates


def test_rates_are_what_counting_gives():
    rng = np.random.default_rng(3)
    images, pixels = [], []
    for index in range(30):
        label = bool(rng.integers(2))
        values = rng.random((rng.integers(1, 9), rng.integers(1, 9)), np.float32)
        mask = rng.random(values.shape) < 0.3 if label else np.zeros(values.shape, bool)
        if index % 5 == 0:
            images.append((values, None, rng.random() / 5, label))
        else:
            images.append((values, mask, rng.random() / 5, label))
        if index % 5 or not label:
            pixels += zip(values.ravel() > 0.7, mask.ravel(), strict=True)
    verdicts = [(score > 0.1, label) for _, _, score, label in images]

    def share(of, wrong):
        of_kind = [verdict for verdict, truth in of if truth != wrong]
        return sum(verdict == wrong for verdict in of_kind) / len(of_kind)

    expected = {
        "image_false_alarm_rate": share(verdicts, True),
        "image_miss_rate": share(verdicts, False),
        "pixel_false_alarm_rate": share(pixels, True),
        "pixel_miss_rate": share(pixels, False),
    }
    assert all(0 < value < 1 for value in expected.values())
    assert counted(images).result() == pytest.approx(expected)
    merged = counted(images[20:])
    merged.merge(pickle.loads(pickle.dumps(counted(images[:20]))))
    assert merged.result() == counted(images).result()


def test_rates_of_what_there_is_not_are_nan():
    good = (np.full((2, 2), 0.7, np.float32), np.zeros((2, 2), bool), 0.1, False)
    assert all(math.isnan(value) for value in ErrorRates(SOME).result().values())
    found = counted([good]).result()  # at a threshold, not above
    assert found.pop("image_false_alarm_rate") == found.pop("pixel_false_alarm_rate") == 0
    assert len(found) == 2 and all(math.isnan(value) for value in found.values())


def test_rates_refuse_what_would_be_a_wrong_number():
    values, mask = np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)
    with pytest.raises(MetricError, match="not finite"):
        counted([(values, mask, math.nan, True)])
    with pytest.raises(MetricError, match="not finite"):
        counted([(values * np.nan, mask, 0.5, True)])
    with pytest.raises(MetricError, match=r"mask is \(2, 3\), but the map \(2, 2\)"):
        counted([(values, np.zeros((2, 3), bool), 0.5, True)])
    with pytest.raises(ValueError, match="thresholds"):
        ErrorRates(SOME).merge(ErrorRates(Calibration(0.2, 1, 0.7, "training", 1)))
