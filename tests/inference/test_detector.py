"""`Detector` and `Sam`: every kind of file, against an independent implementation."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from miniature import CATEGORIES
from PIL import Image

from conversion.to_torch import convert_file
from conversion.torch_stlm import TorchStlm
from stlm_jax.inference import Detector, Sam
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration, Description

torch = pytest.importorskip("torch")

_WITHOUT_JAX = """
import sys
from stlm_jax.cli.main import main
sys.modules |= dict.fromkeys(("jax", "flax", "orbax"))  # to import one is an error
sys.exit(main(sys.argv))
"""


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """A trained category as a torch file."""
    path = tmp_path_factory.mktemp("exported") / "disc.pt"
    convert_file(finished_run / "run" / "disc", path)
    return path


@pytest.fixture(scope="module")
def expected(exported, images):
    with torch.no_grad():
        return TorchStlm.load(exported)(torch.from_numpy(images))


def assert_close(actual, expected):
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape and actual.dtype == np.float32
    assert np.linalg.norm(actual - expected) <= 1e-4 * np.linalg.norm(expected)


def test_a_run_and_its_export_say_what_the_torch_model_says(
    finished_run, exported, expected, images
):
    for detector in (
        Detector.load(finished_run / "run" / "disc"),
        Detector.load(exported, image_size=64),
    ):
        assert detector.image_size == 64
        found = detector(images)
        assert_close(found.anomaly_map, expected["anomaly_map"])
        assert_close(found.score, expected["anomaly_score"])
        assert (found.is_anomalous is None) == (detector.calibration is None)
    assert Detector.load(finished_run / "run" / "disc").category == "disc"


def test_an_onnx_file_says_it_too(onnx_of_run, expected, images, tmp_path):
    detector = Detector.load(onnx_of_run)
    assert (detector.category, detector.image_size) == ("disc", 64)
    found = detector(images)
    assert_close(found.anomaly_map, expected["anomaly_map"])
    assert_close(found.score, expected["anomaly_score"])
    with pytest.raises(UserError, match="exported for 64 px, not 96"):
        Detector.load(onnx_of_run, image_size=96)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    command = [sys.executable, "-c", _WITHOUT_JAX, "predict", onnx_of_run, *tmp_path.glob("*.png")]
    command += [f"--output={tmp_path / 'out'}", "--maps=npy"]
    assert subprocess.run(command).returncode == 0
    rows = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
    scores = {pathlib.Path(row["path"]).name: row["score"] for row in rows}
    for index, score in enumerate(found.score):
        assert scores[f"{index}.png"] == pytest.approx(float(score), rel=1e-5)


def test_images_of_another_size_are_squashed_and_maps_restored(finished_run):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    large = np.stack([np.asarray(Image.fromarray(x).resize((90, 50))) for x in smooth])
    small = np.stack(
        [np.asarray(Image.fromarray(x).resize((64, 64), Image.Resampling.BILINEAR)) for x in large]
    )
    detector = Detector.load(finished_run / "run" / "ring")
    from_large, from_small = detector(large), detector(small)
    assert from_large.anomaly_map.shape == (2, 50, 90)
    np.testing.assert_allclose(from_large.score, from_small.score, rtol=1e-5)
    at = Image.fromarray(from_small.anomaly_map[0]).resize((90, 50), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(from_large.anomaly_map[0], at, rtol=1e-4)


def test_a_batch_is_what_its_images_are_alone(finished_run):
    images = np.random.default_rng(1).integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    detector = Detector.load(finished_run / "run" / "disc")
    alone = np.concatenate([detector(images[i : i + 1]).score for i in range(len(images))])
    np.testing.assert_allclose(detector(images).score, alone, rtol=1e-5)


def test_a_threshold_decides():
    scores = np.array([0.2, 0.5, 0.7], np.float32)
    calibration = Calibration(0.5, 0.1, 0.5, "held_out", 9)
    detector = Detector(
        lambda x: {"map": np.zeros((4, 16, 16), np.float32), "score": scores[[0, 1, 2, 2]]},
        Description(image_size=16, calibration=calibration),
    )
    found = detector(np.zeros((3, 16, 16, 3), np.uint8))
    assert found.is_anomalous.tolist() == [0, 0, 1] and detector.threshold == 0.5
    expected = [1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-2))]
    np.testing.assert_allclose(found.normalised, expected, rtol=1e-6)


def test_padding_is_cut_off_and_does_not_count():
    """A map of ones in the padding alone, of which the detector must say nothing."""
    square = np.ones((1, 32, 32), np.float32)
    square[:, 8:24] = 0.25  # where an image twice as wide as high lies
    description = Description(image_size=32, geometry="pad", score_top_k=5)
    detector = Detector(lambda x: {"map": square, "score": np.ones(1, np.float32)}, description)
    found = detector(np.zeros((1, 20, 40, 3), np.uint8))
    assert found.anomaly_map.shape == (1, 20, 40)
    assert np.all(found.anomaly_map == 0.25) and found.score.tolist() == [0.25]
    assert found.is_anomalous is None and found.normalised is None


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 4), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        [[1, 2]],
    ],
)
def test_anything_but_images_is_refused(finished_run, images):
    detector = Detector.load(finished_run / "run" / "disc")
    with pytest.raises(UserError, match=r"must be uint8 \(N, H, W, 3\)"):
        detector(images)


def test_what_cannot_be_loaded_is_named(finished_run, tmp_path):
    run = finished_run / "run"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07not a graph")
    for path, expected in (
        (tmp_path / "absent", "no such checkpoint"),
        (run, "give one category's folder"),
        (tmp_path, "holds no checkpoints"),
        (finished_run / "tiny.py", "damaged, or holds Python objects"),
    ):
        with pytest.raises(UserError, match=expected):
            Detector.load(path)
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="broken.onnx"):
        Detector.load(broken)


def test_a_whole_stlm_in_the_configuration_is_used_untrained(finished_run, exported, tmp_path):
    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    status = main(
        ["main", f"--config={finished_run / 'tiny.py'}", f"--workdir={tmp_path / 'new'}",
         "--mode=predict", f"--config.predict.input={picture}", "--config.data.categories=disc",
         f"--config.student.checkpoint={exported}"]
    )  # fmt: skip
    assert status == 0 and CATEGORIES[0] == "disc"
    scores = (tmp_path / "new/results/predict/disc/scores.csv").read_text().splitlines()
    with torch.no_grad():
        expected = TorchStlm.load(exported)(torch.from_numpy(pixels[None]))["anomaly_score"]
    assert abs(float(scores[1].split(",")[1]) - float(expected[0])) <= 1e-4 * float(expected[0])


def test_sam_gives_the_published_features(golden, relative_error, tmp_path):
    tensors = golden.state_dict(golden.load_manifest("mobile_sam"), seed=0)
    path = tmp_path / "mobile_sam.pt"
    torch.save({name: torch.from_numpy(np.asarray(x)) for name, x in tensors.items()}, path)
    features = Sam.load(path)(golden.image(1024, 1024, 0))
    with np.load(golden.folder / "mobile_sam_1024.npz") as expected:
        for level, feature in enumerate(features, 1):
            assert feature.shape == (1, 64, 64, 256) and feature.dtype == np.float32
            sampled = feature.transpose(0, 3, 1, 2)[:, ::16, ::8, ::8]
            assert relative_error(sampled, expected[f"feature{level}"]) <= 1e-4


def test_sam_takes_the_demo_teacher_and_refuses_an_stlm(exported):
    first, second = Sam.load("demo", 256)(np.zeros((1, 100, 120, 3), np.uint8))
    assert first.shape == second.shape == (1, 16, 16, 128)
    with pytest.raises(UserError, match="not a SAM"):
        Sam.load(exported)
    with pytest.raises(UserError, match="multiple of 16"):
        Sam.load("demo", 100)
