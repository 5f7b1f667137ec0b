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
from conversion.torch_stlm import TorchStlm, Widths
from stlm_jax.inference import Detector
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.training.state import create_train_state
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.description import Calibration
from stlm_jax.weights.file import open_safetensors, read_weights, write_weights
from stlm_jax.weights.names import UNUSED
from stlm_jax.weights.torch_file import METADATA
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
    assert names == set(tensors) and metadata["format"] == "pt"
    assert not any("threshold" in name for name in names)


def as_the_last_release(source, path):
    """The torch file `source` as it was written then: bare tensors, and the description beside."""
    state_dict = torch.load(source, weights_only=True)
    torch.save(dict(state_dict), path)
    path.with_name(f"{path.name}.json").write_text(getattr(state_dict, METADATA)["stlm_jax"])
    return dict(state_dict)


def test_a_torch_file_of_the_last_release_is_read_with_its_description(
    place, run, exports, images, tmp_path, capsys
):
    path = tmp_path / "old.pt"
    as_the_last_release(exports[".pt"], path)
    assert_same(Detector.load(path), run, images)
    assert TorchStlm.load(path).description == run.description
    assert not capsys.readouterr().err


def test_a_description_of_other_weights_is_refused(exports, tmp_path):
    path = tmp_path / "copy.pt"
    state_dict = as_the_last_release(exports[".pt"], path)
    state_dict["segmentation.head.4.bias"] += 1
    torch.save(state_dict, path)
    for load in (load_trained, TorchStlm.load):
        with pytest.raises(
            UserError, match=r"copy\.pt: damaged, or not the model that \S*copy\.pt\."
        ):
            load(path)
    (tmp_path / "copy.pt.json").write_text("{")
    for load in (load_trained, TorchStlm.load):
        with pytest.raises(UserError, match=r"copy\.pt\.json: not a description"):
            load(path)


def test_a_torch_file_alone_says_what_it_is(run, exports, images, tmp_path, capsys):
    """Under another name, in another folder, and after torch has read and written it."""
    copies = [tmp_path / name for name in ("copy.pt", "again.pt", "copy.safetensors")]
    shutil.copy(exports[".pt"], copies[0])
    torch.save(torch.load(exports[".pt"], weights_only=True), copies[1])
    shutil.copy(exports[".safetensors"], copies[2])
    assert not exports[".pt"].with_name("disc.pt.json").exists()
    for copy in copies:
        assert_same(Detector.load(copy), run, images)
        model = TorchStlm.load(copy)
        assert (model.description, model.score_top_k) == (run.description, 7)
    assert not capsys.readouterr().err


def test_the_published_module_takes_the_file_as_it_is(exports):
    model = TorchStlm(Widths.of(torch.load(exports[".pt"], weights_only=True)))
    unexpected = model.load_state_dict(torch.load(exports[".pt"]), strict=False)
    assert not unexpected.missing_keys and all(map(UNUSED.search, unexpected.unexpected_keys))


def test_a_torch_file_that_says_nothing_wants_an_image_size(exports, tmp_path, capsys):
    path, out = tmp_path / "bare.pt", tmp_path / "out.stablehlo"
    torch.save(dict(torch.load(exports[".pt"], weights_only=True)), path)
    capsys.readouterr()
    assert to_stablehlo.main([str(path), str(out), "--platforms=tpu"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {path}: does not say at which image size it was trained: give")
    assert to_stablehlo.main([str(path), str(out), "--platforms=tpu", "--image_size=64"]) == 0
    said = capsys.readouterr().err
    assert f"{path}: its thresholds are not known" in said
    assert said.count("bare.pt: carries no digest of its weights") == 1
    TorchStlm.load(path)
    said = capsys.readouterr().err
    assert "thresholds are not known, nor the size of the images" in said
    assert said.count("bare.pt: carries no digest of its weights") == 1


def test_what_is_not_known_stays_unknown_on_the_way(exports, tmp_path):
    """No image size of 1024 px appears in a file that was made of one that says none."""
    paths = [tmp_path / name for name in ("bare.pt", "a.safetensors", "b.pt", "c.safetensors")]
    torch.save(dict(torch.load(exports[".pt"], weights_only=True)), paths[0])
    commands = (from_torch, to_torch, to_torch)
    for command, *files in zip(commands, paths[:-1], paths[1:], strict=True):
        run_command(command, *files)
    for path in paths:
        with pytest.raises(UserError, match="does not say at which image size"):
            load_trained(path)


def test_the_halves_of_two_models_are_refused(place, exports, tmp_path):
    other = tmp_path / "other.ours.safetensors"
    weights = read_weights(exports[".ours"])
    weights.variables["params"]["segmentation"]["head_4"]["bias"] += 1
    write_weights(other, entries(weights.variables), weights.metadata)
    run_command(to_torch, other, tmp_path / "1.pt", f"--segmentation={tmp_path / '2.pt'}")
    for load in (load_trained, TorchStlm.load):
        load(tmp_path / "1.pt", tmp_path / "2.pt")
        with pytest.raises(UserError, match=r"2\.pt: not the FA module of"):
            load(place / "1.pt", tmp_path / "2.pt")


def test_the_torch_model_says_that_images_are_of_another_size(exports, capsys):
    model = TorchStlm.load(exports[".pt"])
    for size in (64, 96, 96):
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    said = capsys.readouterr().err
    assert said.count("warning: images of 96x96 px, but the model was trained at 64x64") == 1
    assert said.count("\n") == 1


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
