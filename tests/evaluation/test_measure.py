"""Test images measured one by one, with a model that sees colours and an oracle that sees all."""

import itertools
import pickle
import threading
import time

import numpy as np
import pytest
from colour_model import SIZE, ColourPredictor, config_of, smooth, write
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from stlm_jax.data.images import ImageError
from stlm_jax.data.records import Record
from stlm_jax.evaluation.measure import measure, read_test_image
from stlm_jax.evaluation.measurements import Measurements
from stlm_jax.metrics import MetricError
from stlm_jax.weights.description import Calibration

NAMES = ("image_auroc", "pixel_auroc", "pixel_ap")
CALIBRATION = Calibration(0.3, 0.1, 0.25, "held_out", 9)


def image_set(folder, count=7, shape=(90, 120)):
    """Smooth images, every second with a reddish square that its mask marks; shapes differ."""
    records, masks = [], []
    for index in range(count):
        pixels = smooth(shape[0] + 10 * index, shape[1], index).copy()
        mask = np.zeros(pixels.shape[:2], np.uint8)
        if index % 2:
            mask[20:50, 30:70] = 255
            pixels[mask > 0, 0] = np.minimum(pixels[mask > 0, 0] + 25 + index, 255)
        (path,) = write(folder, [pixels])
        path = path.rename(folder / f"image{index}.png")
        mask_path = folder / f"mask{index}.png"
        Image.fromarray(mask).save(mask_path)
        defect = "spot" if index % 2 else "good"
        truth = mask_path if index % 2 else None
        records.append(Record(path, truth, index % 2, defect, "c", "test"))
        masks.append(mask)
    return records, masks


def settings(resolution="image_size", geometry="squash", skip=False):
    config = config_of(geometry, skip=skip)
    config.evaluate.metrics, config.evaluate.resolution = NAMES, resolution
    return config


def resized(values, shape):
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("geometry", ["squash", "pad"])
@pytest.mark.parametrize("resolution", ["image_size", "native", "32"])
def test_metrics_are_taken_at_the_resolution(tmp_path, resolution, geometry):
    records, masks = image_set(tmp_path)
    config = settings(resolution, geometry)
    measured = measure(config, ColourPredictor(config), records, "c")
    values = measured.with_fa.result().values
    truth, found, scores = [], [], []
    for record, mask in zip(records, masks, strict=True):
        with Image.open(record.image) as file:
            seen = file.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        red = np.asarray(seen)[..., 0]
        side = {"image_size": SIZE, "32": 32}.get(resolution)
        shape = (side, side) if side else mask.shape
        truth.append((resized(mask / 255, shape) >= 0.5).ravel())
        found.append(resized(red, shape).ravel())
        scores.append(np.sort(found[-1])[-10:].mean())
    pixels = np.concatenate(truth), np.concatenate(found)
    tolerance = 1e-4 if geometry == "squash" else 0.03  # padded, the model sees less
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(*pixels), abs=tolerance)
    assert values["pixel_ap"] == pytest.approx(average_precision_score(*pixels), abs=2 * tolerance)
    of_images = [image.score for image in measured.in_order()]
    labels = [record.label for record in records]
    assert values["image_auroc"] == pytest.approx(roc_auc_score(labels, of_images))
    if resolution == "image_size" and geometry == "squash":
        np.testing.assert_allclose(of_images, np.array(scores) / 255, atol=0.005)


@pytest.mark.parametrize("geometry", ["squash", "pad"])
def test_the_whole_image_is_seen_and_no_padding(tmp_path, geometry):
    images = [smooth(96, 160), smooth(160, 60, 1), smooth(64, 64, 2), smooth(30, 64, 3)]
    paths = write(tmp_path, images)
    records = [Record(path, None, 0, "good", "c", "test") for path in paths]
    config = settings(geometry=geometry)
    config.report.thumbnail = 80
    predictor = ColourPredictor(config)
    measured = measure(config, predictor, records, "c", CALIBRATION, panels=[0, 3])
    assert predictor.batches == [(3, SIZE, SIZE, 3)] * 2
    assert sorted(measured.maps) == [0, 3]
    for index, (image, found) in enumerate(zip(images, measured.in_order(), strict=True)):
        assert found.name == f"good/{index}" and found.score == measured.images[index].score
        assert found.score == pytest.approx(image[..., 0].max() / 255, abs=0.03)
        assert found.score_without_fa == pytest.approx(image[..., 1].max() / 255, abs=0.03)
        longest = max(image.shape)
        small = tuple(round(n * min(1, 80 / longest)) for n in image.shape[:2])
        assert found.picture.shape == (*small, 3) and found.picture.dtype == np.uint8
        assert found.map.shape == found.mask.shape == small and not found.mask.any()
        np.testing.assert_allclose(found.picture[..., 0] / 255, found.map, atol=0.04)
    for index, values in measured.maps.items():
        squashed = resized(images[index][..., 0], (SIZE, SIZE)) / 255
        np.testing.assert_allclose(values, squashed, atol=0.03)


def test_rates_are_counted_at_the_thresholds(tmp_path):
    dark, red = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 40, np.uint8)
    red[:16, :, 0] = 200
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    paths = write(tmp_path, [dark, red, red])
    Image.fromarray(mask).save(tmp_path / "mask.png")
    records = [
        Record(paths[0], None, 0, "good", "c", "test"),
        Record(paths[1], tmp_path / "mask.png", 1, "spot", "c", "test"),
        Record(paths[2], None, 1, "spot", "c", "test"),  # no mask
    ]
    config = settings()
    measured = measure(config, ColourPredictor(config), records, "c", CALIBRATION)
    assert measured.rates.result() == {
        "image_false_alarm_rate": 0.0,
        "image_miss_rate": 0.0,
        "pixel_false_alarm_rate": 0.0,
        "pixel_miss_rate": 0.5,
    }
    assert measured.in_order()[2].mask is None


def test_defective_images_without_a_mask_count_in_image_metrics_only(tmp_path):
    records, _ = image_set(tmp_path)
    config = settings()

    def values(records):
        return measure(config, ColourPredictor(config), records, "c").with_fa.result().values

    bright = np.full((64, 64, 3), 255, np.uint8)
    bright[..., 0] = 0  # nothing red: the model misses it
    (path,) = write(tmp_path, [bright])
    with_unknown = values([*records, Record(path, None, 1, "spot", "c", "test")])
    without = values(records)
    assert with_unknown["pixel_auroc"] == without["pixel_auroc"]
    assert with_unknown["image_auroc"] == pytest.approx(without["image_auroc"] * 3 / 4)


def test_any_split_into_processes_gives_the_same(tmp_path):
    records, _ = image_set(tmp_path, count=9)
    config = settings("native")
    config.report.gallery, config.evaluate.panels = 4, 2
    predictor = ColourPredictor(config)
    whole = measure(config, predictor, records, "c", CALIBRATION, panels=[1, 8])
    parts = []
    for process in range(3):
        part = Measurements(config, CALIBRATION, [1, 8])
        for index in range(process, 9, 3):
            seen = read_test_image(config, index, records[index])
            (found,) = predictor([seen.view])
            part.fold(part.look(seen, found))
        parts.append(pickle.loads(pickle.dumps(part)))
    merged = parts[2]
    merged.merge(parts[0])
    merged.merge(parts[1])
    for kind in ("with_fa", "without_fa"):
        one, other = getattr(whole, kind).result(), getattr(merged, kind).result()
        assert one.values == other.values and one.intervals == other.intervals
    assert whole.rates.result() == merged.rates.result()
    assert sorted(merged.maps) == [1, 8]
    for one, other in zip(whole.in_order(), merged.in_order(), strict=True):
        assert (one.name, one.score, one.picture.shape) == (
            other.name, other.score, other.picture.shape
        )  # fmt: skip


def test_the_number_of_threads_changes_no_bit(tmp_path, monkeypatch):
    """White noise in images whose order of arrival the threads shuffle."""
    records, masks = image_set(tmp_path, count=8)
    for index, (record, mask) in enumerate(zip(records, masks, strict=True)):
        noise = np.random.default_rng(index).integers(0, 200, (*mask.shape, 3), np.uint8)
        Image.fromarray(noise).save(record.image)
    config = settings("native")
    look, results = Measurements.look, []

    def delayed(self, image, maps):
        time.sleep(0.02 * (image.place % 3 == 0))
        return look(self, image, maps)

    monkeypatch.setattr(Measurements, "look", delayed)
    for threads in (1, 4):
        monkeypatch.setattr("stlm_jax.evaluation.measure._THREADS", threads)
        measured = measure(config, ColourPredictor(config), records, "c", CALIBRATION)
        assert list(measured.images) == list(range(8))
        parts = measured.with_fa.result(), measured.without_fa.result(), measured.rates.result()
        results.append(pickle.dumps(parts))
    assert results[0] == results[1]


def test_ctrl_c_is_heard_while_images_wait_for_their_turn(tmp_path, monkeypatch):
    records, _ = image_set(tmp_path, count=8)
    config = settings()
    predictor, look = ColourPredictor(config), Measurements.look

    def stopped(views):
        yield from itertools.islice(predictor(views), 6)
        raise KeyboardInterrupt

    def slow(self, image, maps):
        time.sleep(0.05)
        return look(self, image, maps)

    monkeypatch.setattr(Measurements, "look", slow)
    before = set(threading.enumerate())  # pools of other tests' models
    with pytest.raises(KeyboardInterrupt):
        measure(config, stopped, records, "c")
    assert not [t for t in threading.enumerate() if t not in before and "ThreadPool" in t.name]


def test_only_the_most_wrong_keep_their_pictures(tmp_path):
    """Scores around a threshold of 0.3: two good images above it, one defective below."""
    reds = {"good": [10, 20, 100, 110, 30, 15], "spot": [50, 200, 210, 220]}
    records = []
    for defect, values in reds.items():
        for red in values:
            pixels = np.full((64, 64, 3), red, np.uint8)
            path = tmp_path / f"{defect}{red}.png"
            Image.fromarray(pixels).save(path)
            records.append(Record(path, None, int(defect != "good"), defect, "c", "test"))
    config = settings()
    config.report.gallery, config.evaluate.panels = 2, 3  # events show the panels' number
    measured = measure(config, ColourPredictor(config), records, "c", CALIBRATION)
    images = measured.in_order()
    assert [image.name for image in images] == [f"{r.defect}/{r.image.stem}" for r in records]
    kept = [image.name for image in images if image.picture.size]
    assert kept == ["good/good100", "good/good110", "spot/spot50"]
    assert {image.map.shape for image in images} == {(64, 64), (0, 0)}


def test_a_small_defect_stays_visible(tmp_path):
    (path,) = write(tmp_path, [np.zeros((300, 300, 3), np.uint8)])
    mask = np.zeros((300, 300), np.uint8)
    mask[100, 200] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    record = Record(path, tmp_path / "mask.png", 1, "speck", "c", "test")
    config = settings("native")
    config.report.thumbnail = 60
    measured = measure(config, ColourPredictor(config), [record], "c")
    (image,) = measured.in_order()
    assert image.mask.shape == (60, 60) and image.mask[20, 40] and image.mask.sum() <= 9


def test_what_cannot_be_read_is_left_out_or_named(tmp_path, capsys):
    paths = write(tmp_path, [smooth(64, 64, seed) for seed in range(4)])
    records = [Record(path, None, 0, "good", "c", "test") for path in paths]
    paths[1].write_bytes(b"")
    config = settings(skip=True)
    measured = measure(config, ColourPredictor(config), records, "c")
    assert sorted(measured.images) == [0, 2, 3]
    for seed, image in measured.images.items():
        np.testing.assert_allclose(image.map, smooth(64, 64, seed)[..., 0] / 255, atol=1e-6)
    assert "1 of 4 images were left out" in capsys.readouterr().err
    with pytest.raises(ImageError, match=r"1\.png"):
        measure(settings(), ColourPredictor(config), records, "c")


def test_a_map_that_is_not_finite_names_its_image(tmp_path):
    records, _ = image_set(tmp_path, count=2)
    config = settings()
    predictor = ColourPredictor(config)
    sound = predictor._batch

    def damaged(images):
        result = sound(images)
        result["map"][1, 0, 0] = np.nan
        return result

    predictor._batch = damaged
    with pytest.raises(MetricError, match=r"image1\.png: .*finite"):
        measure(config, predictor, records, "c")


def test_the_device_has_its_next_batch_while_the_caller_works(tmp_path):
    config = settings()
    predictor = ColourPredictor(config)
    views = [read_test_image(config, 0, record).view for record in image_set(tmp_path)[0]]
    found = predictor(views)
    next(found)
    assert len(predictor.batches) == 2  # of three images each
    assert len(list(found)) == 6 and len(predictor.batches) == 3
