"""Numbers that are not finite are refused where weights are read and where a score is made."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from conversion import from_torch, to_onnx, to_stablehlo, to_torch
from conversion.torch_stlm import TorchStlm
from stlm_jax.inference import Detector
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.file import read_weights, write_weights
from stlm_jax.weights.load import DEMO_TEACHER

torch = pytest.importorskip("torch")

TENSOR = "encoderS.layers.1.blocks.0.mlp.fc1.weight"
VARIABLE = "params/encoderS/layers_1/blocks_0/mlp/fc1/kernel"
FIRST = "encoderT.patch_embed.seq.0.c.weight"


def entries(variables):
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = "/".join(key.key for key in path)
        yield name, leaf.shape, np.float32, lambda leaf=leaf: leaf


@pytest.fixture(scope="module")
def state_dict(finished_run, tmp_path_factory):
    """A trained student; do not change it."""
    path = tmp_path_factory.mktemp("student") / "disc.pt"
    assert to_torch.main([str(finished_run / "run" / "disc"), str(path)]) == 0
    return torch.load(path, weights_only=True)


@pytest.fixture(params=["torch", "torch of ours", "safetensors", "ours", "float64"])
def bad_student(request, state_dict, tmp_path):
    """A file of a student with a bad number, which it is, and the tensor's name."""
    tensors = {name: tensor.clone() for name, tensor in state_dict.items()}
    tensors[TENSOR][3, 2] = torch.nan
    path = tmp_path / f"bad.{request.param[:2]}"
    if request.param == "torch":
        torch.save(tensors, path)
    elif request.param == "torch of ours":
        kept = torch.load(request.getfixturevalue("ours_pt"), weights_only=True)
        kept[TENSOR][3, 2] = -torch.inf
        torch.save(kept, path)
    elif request.param == "safetensors":
        save_file(tensors, path)
    elif request.param == "float64":
        tensors[TENSOR] = state_dict[TENSOR].double()
        tensors[TENSOR][3, 2] = 1e300  # more than float32 holds
        torch.save(tensors, path)
    else:
        good, ours = tmp_path / "good.pt", tmp_path / "good.ours"
        torch.save(dict(state_dict), good)
        assert from_torch.main([str(good), str(ours)]) == 0
        variables = read_weights(ours).variables
        kernel = variables["params"]["encoderS"]["layers_1"]["blocks_0"]["mlp"]["fc1"]["kernel"]
        kernel[0, 0] = np.inf
        write_weights(path, entries(variables), {"kind": "stlm", "image_size": "64"})
        return path, VARIABLE
    return path, TENSOR


@pytest.fixture
def ours_pt(finished_run, tmp_path):
    path = tmp_path / "disc.pt"
    assert to_torch.main([str(finished_run / "run" / "disc"), str(path)]) == 0
    return path


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def command(finished_run, tmp_path, capsys):
    """Runs the command in a new work folder: status, and lines on stderr."""

    def run(*options, workdir=tmp_path / "new"):
        capsys.readouterr()
        config = f"--config={finished_run / 'tiny.py'}"
        status = main(
            ["main", config, f"--workdir={workdir}", "--config.data.categories=disc", *options]
        )
        return status, capsys.readouterr().err.splitlines()

    return run


def test_readers_name_file_and_tensor(bad_student, picture, command, tmp_path, capsys):
    path, name = bad_student
    expected = f"error: {path}: {name} holds 1 of "
    options = [f"--config.predict.input={picture}", f"--config.student.checkpoint={path}"]
    for mode in ("predict", "evaluate", "train"):
        status, lines = command(f"--mode={mode}", *options)
        assert status == 2 and lines[-1].startswith(expected), lines
    for module, *more in ((to_torch,), (to_stablehlo, "--image_size=64")):
        capsys.readouterr()
        assert module.main([str(path), str(tmp_path / "out.pt"), *more]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(expected)
        assert not (tmp_path / "out.pt").exists()
    if name == TENSOR:
        with pytest.raises(UserError, match=rf"bad\.\w+: {TENSOR} holds 1 of"):
            TorchStlm.load(path)
        capsys.readouterr()
        assert from_torch.main([str(path), str(tmp_path / "out.pt")]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(expected)
        assert not (tmp_path / "out.pt").exists()


def test_the_torch_model_refuses_tensors_that_are_not_finite(state_dict):
    with pytest.raises(UserError, match=f"{FIRST} holds 1 of"):
        changed = dict(state_dict)
        changed[FIRST] = changed[FIRST].clone()
        changed[FIRST].view(-1)[0] = torch.nan
        TorchStlm.from_state_dict(changed)


def test_a_teacher_that_is_not_finite(command, tmp_path):
    path = tmp_path / "teacher.npz"
    with np.load(DEMO_TEACHER) as file:
        arrays = dict(file)
    name = sorted(arrays)[5]
    arrays[name] = np.array(arrays[name])
    arrays[name].reshape(-1)[0] = np.inf
    np.savez(path, **arrays)
    status, lines = command(f"--config.teacher.checkpoint={path}", "--config.teacher.name=demo")
    assert status == 2 and lines[-1].startswith(f"error: {path}: {name} holds 1 of")


def test_a_checkpoint_that_is_not_finite(finished_run, tmp_path, picture, command, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run / "run", workdir)
    folder = workdir / "disc" / "checkpoints"
    trained = load_trained(workdir / "disc")
    variables = jax.tree.map(np.array, trained.variables)
    variables["params"]["encoderS"]["layers_1"]["blocks_0"]["mlp"]["fc1"]["kernel"][0, 0] = np.nan
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, variables, {"x": np.zeros(1)}, {})
    expected = f"error: {folder / '7'}: {VARIABLE} holds 1 of "
    for mode in ("predict", "evaluate"):
        status, lines = command(
            f"--mode={mode}", f"--config.predict.input={picture}", workdir=workdir
        )
        assert status == 2 and lines[-1].startswith(expected), lines
    for module in (to_onnx, to_torch, to_stablehlo):
        assert module.main([str(workdir / "disc"), str(tmp_path / "out.pt")]) == 2
        assert capsys.readouterr().err.startswith(expected)


def test_an_onnx_file_that_is_not_finite(onnx_of_run, tmp_path):
    onnx = pytest.importorskip("onnx")
    for keeps_digest in (True, False):
        model = onnx.load(onnx_of_run)
        tensor = max(model.graph.initializer, key=lambda x: len(x.raw_data))
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.reshape(-1)[0] = np.nan
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        if not keeps_digest:
            for entry in [x for x in model.metadata_props if x.key == "file_sha256"]:
                model.metadata_props.remove(entry)
        onnx.save(model, tmp_path / "bad.onnx")
        with pytest.raises(UserError) as error:
            Detector.load(tmp_path / "bad.onnx")
        said = "damaged or changed since" if keeps_digest else f"{name} holds 1 of "
        assert str(error.value).startswith(f"{tmp_path / 'bad.onnx'}: {said}")


@pytest.fixture
def overflowing(state_dict, tmp_path):
    """A file of finite weights with which nothing that a student computes is finite."""
    tensors = dict(state_dict)
    tensors[FIRST] = torch.full_like(tensors[FIRST], 3e38)
    tensors[FIRST][:, 0] = -3e38
    path = tmp_path / "overflowing.pt"
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("tile", [0, 64])
def test_predict_refuses_a_score_that_is_not_finite(
    command, overflowing, picture, tmp_path, tile, recwarn
):
    status, lines = command(
        "--mode=predict", f"--config.predict.input={picture}", f"--config.predict.tile={tile}",
        f"--config.student.checkpoint={overflowing}",
    )  # fmt: skip
    expected = f"error: {picture}: the model's anomaly map or score of it is not finite"
    assert status == 2 and lines[-1].startswith(expected), lines
    assert not list(tmp_path.rglob("scores.*")) and not list(tmp_path.rglob("*_map.png"))
    assert not [warning for warning in recwarn if "invalid value" in str(warning.message)]


def test_detectors_refuse_a_score_that_is_not_finite(overflowing, picture):
    images = np.stack([np.zeros((64, 64, 3), np.uint8), np.asarray(Image.open(picture))])
    with pytest.raises(UserError, match=r"image \d of 2: .* not finite"):
        Detector.load(overflowing, image_size=64)(images)
    with torch.no_grad(), pytest.raises(UserError, match=r"image \d of 2: .* not finite"):
        TorchStlm.load(overflowing)(torch.from_numpy(images))


def test_the_onnx_detector_refuses_a_score_that_is_not_finite(onnx_of_run):
    """A graph that is whole and finite, whose last sum overflows."""
    from stlm_jax.inference.onnx_model import OnnxModel

    model = OnnxModel(onnx_of_run)
    images = np.zeros((2, 64, 64, 3), np.uint8)
    session = model._session

    class Overflowing:
        def run(self, *arguments):
            maps, scores = session.run(*arguments)
            return maps, np.array([scores[0], np.inf], np.float32)

    model._session = Overflowing()
    with pytest.raises(UserError, match="image 2 of 2: .* not finite"):
        model(images)
