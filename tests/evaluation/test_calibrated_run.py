"""Calibration by the command line: training, evaluation and prediction."""

import csv
import json
import shutil

import numpy as np
import pytest
from miniature import stand_in_step, write_set
from PIL import Image

from stlm_jax.data import dataset
from stlm_jax.inference import Detector
from stlm_jax.inference.predictor import Predictor
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import main
from stlm_jax.settings import parse

KEYS = (
    "--config.data.categories=disc", "--config.data.geometry=pad", "--config.train.steps=2",
    "--config.evaluate.score_top_k=7", "--config.calibration.held_out=0.4",
    "--config.evaluate.panels=0", "--config.student.map_init_scale=0.05",
    "--config.teacher.checkpoint=none",
)  # fmt: skip


def command(place, *options, workdir="run"):
    return ["main", f"--config={place / 'tiny.py'}", f"--workdir={place / workdir}", *options]


def held_out(place, *keys):
    config = parse(command(place, *KEYS, *keys)).config
    return [record.image for record in dataset.split_of(config, "disc", "held_out")]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Nothing is learnt, and one Predictor serves all runs in this process."""
    made = []

    def predictor(config):
        if not made:
            made.append(Predictor(config))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
        for module in ("evaluation.evaluate", "evaluation.calibrate", "inference.predict"):
            patch.setattr(f"stlm_jax.{module}.Predictor", predictor)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The miniature set, and a run that shows its images padded."""
    folder = tmp_path_factory.mktemp("calibrated")
    write_set(folder)
    assert main(command(folder, *KEYS)) == 0
    return folder


@pytest.fixture(scope="module")
def detector(place):
    return Detector.load(place / "run/disc")


@pytest.fixture(scope="module")
def stored(place):
    return json.loads((place / "run/disc/calibration.json").read_text())


@pytest.fixture(scope="module")
def images():
    """Higher than wide, one with a bright square."""
    pixels = np.random.default_rng(7).integers(60, 200, (3, 90, 50, 3), dtype=np.uint8)
    pixels[1, 30:60, 10:40] = 250
    return pixels


def test_the_threshold_is_the_largest_score_of_the_held_out_images(place, detector, stored):
    scores = []
    for path in held_out(place):
        with Image.open(path) as image:
            scores.append(detector(np.asarray(image)[None]).score[0])
    assert len(scores) == 2 and stored["images"] == 2 and stored["source"] == "held_out"
    assert stored["threshold"] == pytest.approx(max(scores), rel=1e-5)
    assert stored["normaliser"] == pytest.approx(max(scores) - np.mean(scores), rel=1e-3)


def test_a_damaged_held_out_image_is_named_before_any_training(place, capsys):
    copy = place / "damaged"
    shutil.copytree(place / "data", copy)
    for path in held_out(place):
        (copy / path.relative_to(place / "data")).write_text("no image")
    root = f"--config.data.root={copy}"
    assert main(command(place, *KEYS, root, workdir="other")) == 2
    assert "/train/good/" in capsys.readouterr().err.splitlines()[-1]
    assert not (place / "other/disc").exists()


def test_training_on_makes_another_and_evaluating_again_does_not(place, capsys):
    copy = place / "longer"
    shutil.copytree(place / "run", copy)
    path = copy / "disc/calibration.json"
    before = path.stat().st_mtime_ns, path.read_text()
    assert main(command(place, *KEYS, "--mode=evaluate", workdir="longer")) == 0
    assert (path.stat().st_mtime_ns, path.read_text()) == before
    assert main(command(place, *KEYS, "--config.train.steps=3", workdir="longer")) == 0
    assert path.read_text() != before[1]
    path.unlink()
    config = json.loads((copy / "config.json").read_text())
    del config["calibration"]  # as of a run made before there were these keys
    (copy / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main(command(place, *KEYS, "--mode=evaluate", workdir="longer")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "was trained with config.calibration.held_out=0.0, now it is 0.4" in error
    assert load_trained(copy / "disc").calibration is None
    older = [*KEYS, "--config.calibration.held_out=0", "--mode=evaluate"]
    assert main(command(place, *older, workdir="longer")) == 0
    assert json.loads(path.read_text())["source"] == "training"
    assert "from training images: optimistic" in capsys.readouterr().err
    assert load_trained(copy / "disc").calibration.images == 5


def test_a_category_without_test_images_is_calibrated(place):
    shutil.copytree(place / "data", place / "good only")
    shutil.rmtree(place / "good only/disc/test")
    root = f"--config.data.root={place / 'good only'}"
    assert main(command(place, *KEYS, root, workdir="untested")) == 0
    assert json.loads((place / "untested/disc/calibration.json").read_text())["images"] == 2


def test_prediction_judges(place, detector, stored, images):
    folder = place / "new images"
    folder.mkdir()
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    found = detector(images)
    predict = command(place, *KEYS, "--mode=predict", f"--config.predict.input={folder}")
    assert main(predict) == 0
    with open(place / "run/results/predict/disc/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["is_anomalous"] for row in rows] == [str(bool(x)) for x in found.is_anomalous]
    np.testing.assert_allclose([float(row["score"]) for row in rows], found.score, rtol=1e-5)
    judged = [float(row["normalised_score"]) for row in rows]
    np.testing.assert_allclose(judged, found.normalised, atol=1e-3)
    by_hand = 1 / (1 + np.exp((stored["threshold"] - found.score) / stored["normaliser"]))
    np.testing.assert_allclose(found.normalised, by_hand, atol=1e-4)
    assert np.array_equal(found.is_anomalous, found.score > stored["threshold"])
    assert 0 < found.is_anomalous.sum() < 3
    (row, *_) = json.loads((place / "run/results/predict/disc/scores.json").read_text())
    assert isinstance(row["is_anomalous"], bool)

    again = ("--config.predict.tile=48", "--config.predict.overwrite=True")
    assert main([*predict, *again]) == 0  # thresholds are of whole images
    (row, *_) = json.loads((place / "run/results/predict/disc/scores.json").read_text())
    assert "is_anomalous" not in row
