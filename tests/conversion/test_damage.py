"""One flipped bit in a file of weights is noticed, or changes nothing; through the commands too."""

import functools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from conversion import from_torch, to_stablehlo, to_torch
from conversion.torch_stlm import TorchStlm
from stlm_jax.inference import Detector
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.load import DEMO_STUDENT, DEMO_TEACHER, read_file

torch = pytest.importorskip("torch")

DAMAGED = "damaged or changed since it was written, its content is not that of its SHA-256"


@pytest.fixture(scope="module")
def files(finished_run, tmp_path_factory):
    """A run's model as every kind of file of ours, by the commands."""
    folder, run = tmp_path_factory.mktemp("exports"), finished_run / "run" / "disc"
    found = {name: folder / f"disc.{name}" for name in ("pt", "safetensors", "ours", "stablehlo")}
    for command, *arguments in (
        (to_torch, run, found["pt"]),
        (to_torch, run, found["safetensors"]),
        (from_torch, found["pt"], found["ours"]),
        (to_stablehlo, run, found["stablehlo"], "--platforms=cpu"),
        (to_torch, run, folder / "1.pt", f"--segmentation={folder / '2.pt'}"),
    ):
        assert command.main([str(argument) for argument in arguments]) == 0
    return found | {"1": folder / "1.pt", "2": folder / "2.pt"}


def flip(source, path, place, bit=0):
    """`source` as `path`, with another bit in the byte at `place` of its length."""
    content = bytearray(source.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    return path


def places(count, seed):
    """Shares of a file, all over it, its very beginning and end too; and bits."""
    rng = np.random.default_rng(seed)
    shares = [0.0, 0.0005, *rng.uniform(0, 1, count), 1 - 1e-9]
    return list(zip(shares, rng.integers(0, 8, len(shares)).tolist(), strict=True))


def same(actual, expected):
    leaves = jax.tree.structure(actual) == jax.tree.structure(expected)
    return leaves and all(jax.tree.leaves(jax.tree.map(np.array_equal, actual, expected)))


# What a file is in each reader: everything that a score depends on.


def as_jax(path):
    trained = load_trained(path)
    return trained.variables, vars(trained.description) | {"calibration": None}


def as_torch(path):
    model = TorchStlm.load(path)
    return {name: x.numpy() for name, x in model.state_dict().items()}, model.score_top_k


def is_noticed(load, expected, path):
    """Whether a file is refused in one line that names it; what is not must be as it was."""
    try:
        found = load(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert same(found, expected)
    return False


@pytest.mark.parametrize("load", [as_jax, as_torch], ids=["JAX", "torch"])
@pytest.mark.parametrize("kind", ["pt", "safetensors", "ours"])
def test_no_flipped_bit_changes_a_state_dict_in_silence(files, tmp_path, kind, load):
    if kind == "ours" and load is as_torch:
        pytest.skip("the torch model reads published names")
    expected = load(files[kind])
    path = tmp_path / files[kind].name
    noticed = [
        is_noticed(load, expected, flip(files[kind], path, *where)) for where in places(30, 1)
    ]
    assert sum(noticed) > (25 if kind == "pt" else 30)  # a zip archive has bytes of no meaning


@pytest.mark.parametrize("kind", ["1", "2"])
def test_a_flipped_bit_in_either_half_is_noticed(files, tmp_path, kind):
    pair = {name: files[name] for name in "12"}
    pair[kind] = flip(files[kind], tmp_path / "half.pt", 0.5)
    for load in (load_trained, TorchStlm.load):
        with pytest.raises(UserError, match=rf"half\.pt: {DAMAGED}"):
            load(*pair.values())


def test_a_flipped_bit_in_stablehlo_or_what_describes_it(files, tmp_path):
    path = tmp_path / "disc.stablehlo"
    beside, source = tmp_path / "disc.stablehlo.json", files["stablehlo"]
    described = source.with_name("disc.stablehlo.json")
    shutil.copy(described, beside)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for place, bit in places(20, 2):
        flip(source, path, place, bit)
        with pytest.raises(UserError, match=rf"disc\.stablehlo: {DAMAGED}"):
            Detector.load(path)
    shutil.copy(source, path)
    run = Detector.load(path)
    assert run.description == load_trained(files["pt"]).description
    np.testing.assert_allclose(run(pixels).score, Detector.load(files["pt"])(pixels).score, 1e-4)
    beside.unlink()
    with pytest.raises(UserError, match="its description, .*json, is not beside it"):
        Detector.load(path)


def test_every_flipped_bit_of_an_onnx_file_is_noticed(onnx_of_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = Detector.load(onnx_of_run)(pixels).score
    for place, bit in places(25, 3):
        path = flip(onnx_of_run, tmp_path / "disc.onnx", place, bit)
        with pytest.raises(UserError, match=r"disc\.onnx: [^\n]*$"):
            Detector.load(path)
    for bit in range(8):
        with pytest.raises(UserError, match=rf"disc\.onnx: {DAMAGED}"):
            Detector.load(flip(onnx_of_run, tmp_path / "disc.onnx", 0.6, bit))
    np.testing.assert_array_equal(Detector.load(onnx_of_run)(pixels).score, expected)


def test_an_onnx_file_without_a_digest_is_read_and_said_to_have_none(onnx_of_run, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    model, path = onnx.load(onnx_of_run), tmp_path / "old.onnx"
    for entry in [x for x in model.metadata_props if x.key == "file_sha256"]:
        model.metadata_props.remove(entry)
    onnx.save(model, path)
    capsys.readouterr()
    assert Detector.load(path).description == Detector.load(onnx_of_run).description
    assert capsys.readouterr().err == (
        f"{path}: carries no digest of its weights, so damage in it cannot be noticed\n"
    )


def test_no_flipped_bit_changes_an_archive_in_silence(tmp_path):
    load = lambda path: read_file(path).variables  # noqa: E731
    expected = load(DEMO_TEACHER)
    path = tmp_path / "teacher.npz"
    noticed = [
        is_noticed(load, expected, flip(DEMO_TEACHER, path, *where)) for where in places(30, 4)
    ]
    assert sum(noticed) > 25


# --- the commands ---


@pytest.fixture
def refused(finished_run, tmp_path, capsys):
    """Runs the command with `options` in a new work folder, and gives its one line of error."""

    def run(*options):
        capsys.readouterr()
        status = main(
            ["main", f"--config={finished_run / 'tiny.py'}", f"--workdir={tmp_path / 'new'}"]
            + ["--config.data.categories=disc", *options]
        )
        lines = capsys.readouterr().err.splitlines()
        assert status == 2 and lines[-1].startswith("error: "), lines
        assert sum("error" in line for line in lines) == 1, lines
        return lines[-1]

    return run


@pytest.mark.parametrize("kind", ["pt", "safetensors", "ours"])
def test_predict_refuses_a_damaged_student(files, tmp_path, refused, kind):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(picture)
    path = flip(files[kind], tmp_path / files[kind].name, 0.5, 6)
    line = refused(
        "--mode=predict", f"--config.predict.input={picture}", f"--config.student.checkpoint={path}"
    )
    assert line.startswith(f"error: {path}: {DAMAGED}")


def test_training_refuses_a_damaged_teacher(tmp_path, refused):
    path = flip(DEMO_TEACHER, tmp_path / "teacher.npz", 0.5)
    line = refused(f"--config.teacher.checkpoint={path}", "--config.teacher.name=demo")
    assert line.startswith(f"error: {path}: damaged, or not an .npz weights file")


@pytest.mark.parametrize("command", [to_torch, to_stablehlo], ids=["to_torch", "to_stablehlo"])
@pytest.mark.parametrize("kind", ["pt", "safetensors", "ours"])
def test_conversions_refuse_a_damaged_source(files, tmp_path, one_line_of_error, kind, command):
    path = flip(files[kind], tmp_path / files[kind].name, 0.4, 3)
    line = one_line_of_error(command.main([str(path), str(tmp_path / "out.pt")]))
    assert line.startswith(f"error: {path}: {DAMAGED}")
    assert not (tmp_path / "out.pt").exists()


def test_files_of_ours_are_read_without_a_word_of_digests(files, capsys):
    for path, load in (
        *((files[kind], load_trained) for kind in ("pt", "safetensors", "ours")),
        (files["pt"], TorchStlm.load),
        (files["stablehlo"], Detector.load),
        (DEMO_STUDENT, read_file),
        (DEMO_TEACHER, read_file),
    ):
        load(path)
    assert "digest" not in capsys.readouterr().err


def test_a_foreign_file_is_told_once_to_have_no_digest(files, tmp_path, capsys):
    state_dict = torch.load(files["pt"], weights_only=True)
    bare = tmp_path / "bare.pt"
    torch.save(dict(state_dict), bare)
    pair = [tmp_path / "first.pt", tmp_path / "second.pt"]
    halves = ({}, {})
    for name, tensor in state_dict.items():
        is_second = name.startswith("segmentation.")
        halves[is_second][name.removeprefix("segmentation.")] = tensor
    for half, path in zip(halves, pair, strict=True):
        torch.save(half, path)
    capsys.readouterr()
    load = functools.partial(load_trained, image_size=64)
    for paths, read in (([bare], load), (pair, load), ([bare], TorchStlm.load)):
        read(*paths)
        said = capsys.readouterr().err.splitlines()
        told = [line for line in said if "digest" in line]
        assert told == [
            f"{path}: carries no digest of its weights, so damage in it cannot be noticed"
            for path in paths
        ]
    assert from_torch.main([str(bare), str(tmp_path / "ours.safetensors")]) == 0
    assert capsys.readouterr().err.count("carries no digest") == 1
