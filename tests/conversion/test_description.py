"""Every export is shown images, and judges them, as the run does that it was made of."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from miniature import write_set
from small_student import make_student

from conversion import from_torch, to_onnx, to_stablehlo, to_torch
from conversion.exports import checks
from conversion.exports import images as run_images
from conversion.torch_stlm import TorchStlm
from stlm_jax.inference import Detector
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.training.state import create_train_state
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.description import Calibration
from stlm_jax.weights.file import open_safetensors, read_weights, write_weights
from stlm_jax.workdir import write_run

torch = pytest.importorskip("torch")


def run_command(module, *arguments):
    assert module.main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The miniature set, and a run of a drawn student that evaluation has calibrated."""
    folder = tmp_path_factory.mktemp("described")
    write_set(folder, ["disc"])
    command = [
        "main", f"--config={folder / 'tiny.py'}", f"--workdir={folder / 'run'}", "--mode=evaluate",
        "--config.data.geometry=pad", "--config.evaluate.score_top_k=7",
        "--config.calibration.held_out=0.4", "--config.evaluate.panels=0",
    ]  # fmt: skip
    settings = parse(command)
    student = make_student(64)
    state = create_train_state(settings.config, student.model, jax.random.key(0), "disc")
    write_run(settings.workdir, settings.config, settings.command)
    with Checkpoints(settings.workdir / "disc" / "checkpoints") as checkpoints:
        checkpoints.save(1, student.variables, state.training(), {})
    assert main(command) == 0
    return folder


@pytest.fixture(scope="module")
def run(place):
    return Detector.load(place / "run/disc")


@pytest.fixture(scope="module")
def images():
    """Higher than wide, one with a bright square."""
    pixels = np.random.default_rng(7).integers(60, 200, (3, 90, 50, 3), dtype=np.uint8)
    pixels[1, 30:60, 10:40] = 250
    return pixels


@pytest.fixture(scope="module")
def exports(place):
    """The run as every kind of file, by the command lines."""
    source = place / "run/disc"
    paths = {name: place / f"disc{name}" for name in (".pt", ".safetensors", ".onnx", ".ours")}
    run_command(to_torch, source, paths[".pt"])
    run_command(from_torch, paths[".pt"], paths[".ours"])
    run_command(to_torch, paths[".ours"], paths[".safetensors"])
    run_command(to_torch, source, place / "1.pt", f"--segmentation={place / '2.pt'}")
    return paths


def assert_same(detector, run, images):
    assert detector.description == run.description
    found, expected = detector(images), run(images)
    for actual, wanted in (
        (found.anomaly_map, expected.anomaly_map),
        (found.score, expected.score),
    ):
        assert np.linalg.norm(actual - wanted) <= 1e-4 * np.linalg.norm(wanted)
    assert np.array_equal(found.is_anomalous, found.score > run.threshold)


def test_a_run_says_what_it_is(place, run, images):
    assert (run.category, run.image_size) == ("disc", 64)
    assert (run.description.geometry, run.description.score_top_k) == ("pad", 7)
    stored = json.loads((place / "run/disc/calibration.json").read_text())
    del stored["made_with"]
    assert run.calibration == Calibration(**stored)
    squashing = dataclasses.replace(run.description, geometry="squash")
    squashed, padded = (
        Detector(run._predict, squashing)(images),
        run(images),
    )  # there is a difference
    assert not np.allclose(squashed.anomaly_map, padded.anomaly_map, rtol=0.05)
    assert not np.allclose(squashed.score, padded.score, rtol=0.01)


def test_every_file_is_shown_and_judged_as_the_run(place, run, exports, images):
    for name in (".pt", ".ours", ".safetensors"):
        assert_same(Detector.load(exports[name]), run, images)
    assert_same(Detector.load(place / "1.pt", place / "2.pt"), run, images)


def test_onnx_is_shown_and_judged_as_the_run(place, run, exports, images):
    pytest.importorskip("jax2onnx")
    run_command(to_onnx, place / "run/disc", exports[".onnx"])
    assert_same(Detector.load(exports[".onnx"]), run, images)


def test_stablehlo_says_what_the_run_is(place, run, exports):
    path = place / "disc.stablehlo"
    run_command(to_stablehlo, exports[".ours"], path, "--platforms=tpu")
    described = json.loads(path.with_name("disc.stablehlo.json").read_text())
    assert run.description.values().items() <= described.items()
    assert described["geometry"] == "pad" and described["threshold"] > 0


def test_the_tensors_of_a_torch_file_stay_the_published_ones(exports):
    names = set(torch.load(exports[".pt"], weights_only=True))
    tensors, metadata = open_safetensors(exports[".safetensors"])
    assert names == set(tensors) and metadata == {"format": "pt"}
    assert not any("threshold" in name for name in names)


def test_a_description_of_other_weights_is_ignored(exports, tmp_path, capsys):
    path = tmp_path / "copy.pt"
    state_dict = torch.load(exports[".pt"], weights_only=True)
    state_dict["segmentation.head.4.bias"] += 1
    torch.save(state_dict, path)
    assert load_trained(path).calibration is None
    shutil.copy(f"{exports['.pt']}.json", f"{path}.json")
    assert load_trained(path).calibration is None
    assert "copy.pt.json: ignored, it is of other weights than" in capsys.readouterr().err
    (tmp_path / "copy.pt.json").write_text("{")
    with pytest.raises(UserError, match=r"copy\.pt\.json: not a description"):
        load_trained(path)


def test_damaged_metadata_are_named(exports, tmp_path):
    weights = read_weights(exports[".ours"])
    for name, value in (("threshold", "high"), ("geometry", "round"), ("image_size", "")):
        path = tmp_path / f"{name}.safetensors"
        write_weights(path, entries(weights.variables), {**weights.metadata, name: value})
        with pytest.raises(UserError, match=f"{name}.safetensors: what it says of the model is"):
            load_trained(path)


def test_thresholds_do_not_hold_at_another_size(exports, capsys):
    for path, options in ((exports[".ours"], {}), (exports[".pt"], {"image_size": 64})):
        assert Detector.load(path, **options).threshold is not None
        assert Detector.load(path, image_size=96).threshold is None
        assert "its thresholds are of 64 px and do not hold at 96" in capsys.readouterr().err


def test_our_torch_model_scores_as_the_run_does(run, exports):
    squares = np.random.default_rng(8).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        scores = TorchStlm.load(exports[".pt"])(torch.from_numpy(squares))["anomaly_score"]
    np.testing.assert_allclose(run(squares).score, scores, rtol=1e-4)


def test_int8_is_calibrated_and_measured_in_the_geometry_of_the_run(place):
    trained = load_trained(place / "run/disc")
    seen = run_images.calibration_images(trained, None)
    assert seen.shape == (3, 64, 64, 3)  # those that it was trained on
    assert np.all(seen[:, :4] == 114) and np.all(seen[:, -4:] == 114)  # 56 rows of 64 are image
    shown = []

    def run(images):
        shown.append(images)
        maps = images[..., 0].astype(np.float32) / 255
        return {"map": maps, "score": maps.max((1, 2))}

    found = checks.auroc(run, trained, run_images.run_records(trained, "test"), "AUROC")
    assert sum(map(len, shown)) == 8  # 5 and padding, so that few shapes are compiled
    assert all(np.all(image[:, :4] == 114) for image in shown)
    assert found == {"image_auroc": 1.0, "pixel_auroc": pytest.approx(1.0, abs=2e-2)}


def entries(tree, prefix=""):
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from entries(value, f"{path}/")
        else:
            yield path, value.shape, np.float32, lambda value=value: value
