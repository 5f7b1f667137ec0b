"""What fuzzing has found, each once more through the command that a user would have given."""

import io
import json
import math
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import stand_in
from damage import DEEP
from outcome import command
from test_fuzz_exports import write_onnx, write_openvino, write_stablehlo

from stlm_jax.cli.main import main
from stlm_jax.data.checked import known_problems
from stlm_jax.inference import traced
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.report.run_facts import of_run
from stlm_jax.runtime.exit_status import exit_status
from stlm_jax.weights.load import load_sam
from stlm_jax.workdir import read_run, stored_config, write_run

BRACKETS = "[" * DEEP + "]" * DEEP


@pytest.fixture
def run(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run / "run", folder, ignore=shutil.ignore_patterns("results"))
    return folder


@pytest.fixture
def refused(tmp_path):
    """Predicts with a model, and gives the line that it is refused with."""

    def predict(model, *options, gib=8):
        stand_in.grey(tmp_path / "photo.png", 90)
        arguments = ["stlm", "predict", str(model), str(tmp_path / "photo.png"), *options]
        status, lines = command(main, [*arguments, f"--output={tmp_path / 'out'}"], gib=gib)
        assert status == 2, lines
        return lines[-1]

    return predict


@pytest.mark.parametrize("file", ["config.json", "disc/calibration.json", "disc/depth.json"])
def test_brackets_in_brackets(run, refused, file):
    (run / file).write_text(BRACKETS)
    assert f"{run / file}: not a" in refused(run, "--category=disc")


def test_a_seed_of_more_digits_than_python_reads(tmp_path):
    (tmp_path / "plain.py").write_text("from stlm_jax.config import default as get_config\n")
    option = f"--config.ensemble.seeds=1,{'9' * 5000}"
    arguments = ["stlm", "train", f"--config={tmp_path / 'plain.py'}", option]
    status, lines = command(main, arguments)
    assert status == 2 and lines[-1].endswith("with commas between, such as 0,1,2")


def test_a_safetensors_header_of_brackets(tmp_path, refused):
    path = tmp_path / "deep.safetensors"
    text = f'{{"__metadata__": {BRACKETS}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert f"{path}: truncated, or not a safetensors file" in refused(path)


@pytest.mark.parametrize("problem", [
    {"kind": 1, "text": "a"}, {"kind": "a", "text": None}, {"kind": "a", "text": "b", "fatal": "no"}
])  # fmt: skip
def test_a_check_of_data_that_is_none(run, problem):
    """The files are read again, as where there was no check."""
    path = run / "data_check.json"
    of = json.loads(path.read_text())["of"]
    assert known_problems(path, of) == []
    path.write_text(json.dumps({"of": of, "problems": [problem]}))
    assert known_problems(path, of) is None


@pytest.mark.parametrize(
    "changed", [{"threshold": 10**400}, {"threshold": True}, {"images": "x"}, {"images": -1}]
)
def test_a_calibration_that_is_none(run, refused, changed):
    path = run / "disc/calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert f"{path}: not a calibration" in refused(run, "--category=disc")


@pytest.mark.parametrize("value", [None, 5, [1]])
def test_a_depth_that_is_no_text(run, refused, value):
    path = run / "disc/depth.json"
    path.write_text(json.dumps({"depth": value}))
    assert f"{path}: not a depth" in refused(run, "--category=disc")


def test_a_file_that_only_dates_a_checkpoint(run, refused):
    path = run / "disc/checkpoints/6/_CHECKPOINT_METADATA"
    path.write_text("true")
    line = refused(run, "--category=disc")
    assert "disc/checkpoints: _CHECKPOINT_METADATA of a checkpoint in it is damaged" in line


def red(config, model):
    """In the place of `traced.prediction`: compiles at once, and nothing of it is kept."""

    def predict(variables, image):
        maps = np.float32(image[..., 0]) / 255
        return {"map": maps, "score": maps.mean((1, 2))}

    return traced.Traced(variable_shapes(model), predict)


def test_thresholds_are_of_the_weights_that_are_read(run, tmp_path, monkeypatch):
    """The newest checkpoint is damaged: nothing is judged by what was estimated with it."""
    monkeypatch.setattr("stlm_jax.inference.traced.prediction", red)
    stand_in.grey(tmp_path / "photo.png", 90)
    arguments = ["stlm", "predict", str(run), str(tmp_path / "photo.png"), "--category=disc"]
    verdicts = []
    for name in ("whole", "damaged"):
        if name == "damaged":
            shutil.rmtree(run / "disc/checkpoints/6/student/d")
        status, _ = command(main, [*arguments, f"--output={tmp_path / name}"], gib=8)
        row = json.loads((tmp_path / name / "predictions.jsonl").read_text())
        verdicts.append(row["verdict"])
        assert status == 0 and math.isfinite(row["score"])
    assert verdicts[0] in ("good", "defective") and verdicts[1] is None


@pytest.mark.parametrize("changed", [
    {"previous": 3}, {"versions": ["jax"]}, {"git_revision": {}, "started": 7}
])  # fmt: skip
def test_a_run_goes_on_whatever_run_json_says(run, changed):
    (run / "run.json").write_text(json.dumps(changed))
    config = stored_config(run)
    seen = SimpleRun(config)
    assert all(isinstance(value, str) for value in of_run(seen, run).values())
    write_run(run, config, ("again",))
    assert read_run(run)["command"] == "again"


class SimpleRun:
    """What the report's facts look at."""

    class cost:  # noqa: N801
        device = "cpu"

    def __init__(self, config):
        self.config = config


def test_a_damaged_threshold_beside_stablehlo(tmp_path, refused):
    path = write_stablehlo(tmp_path)
    beside = tmp_path / "disc.stablehlo.json"
    beside.write_text(beside.read_text().replace('"threshold": 0.5', '"threshold": 0.7', 1))
    assert f"{beside}: damaged or changed since it was written" in refused(path)


def test_damaged_onnx_is_shown_to_no_library(tmp_path, refused, monkeypatch):
    path = write_onnx(tmp_path)
    content = path.read_bytes()
    at = content.index(b"detector")
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    monkeypatch.setattr("stlm_jax.inference.onnx_model.open_session", None)
    assert f"{path}: damaged or changed since it was written" in refused(path)


def test_damaged_openvino_is_shown_to_no_library(tmp_path, refused, monkeypatch):
    path = write_openvino(tmp_path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setattr("stlm_jax.inference.openvino_model.read", None)
    assert "damaged or changed since it was written" in refused(path)


@pytest.mark.parametrize("key, value", [
    ("image_size", "inf"), ("image_size", "33"), ("image_size", "16000000"), ("score_top_k", "0")
])  # fmt: skip
def test_a_description_that_no_model_can_have(tmp_path, refused, key, value):
    onnx = pytest.importorskip("onnx")
    path = write_onnx(tmp_path)
    model = onnx.load(path)
    for entry in list(model.metadata_props):
        if entry.key == key:
            entry.value = value
        if entry.key == "file_sha256":
            model.metadata_props.remove(entry)
    onnx.save(model, path)
    assert f"{path}: what it says of the model is damaged" in refused(path)


def _odd_tensors():
    torch = pytest.importorskip("torch")
    return {
        "expanded": torch.zeros(1).expand(2**38),
        "meta": torch.empty(2**40, device="meta"),
        "float8": torch.zeros(3, dtype=torch.float8_e4m3fn),
        "sparse": torch.ones(2).to_sparse(),
    }


@pytest.mark.parametrize("name", ["expanded", "meta", "float8", "sparse"])
def test_a_tensor_that_is_no_plain_one(tmp_path, refused, name):
    import torch

    path = tmp_path / "odd.pt"
    torch.save({"encoderT.x": _odd_tensors()[name]}, path)
    assert f"{path}: encoderT.x is not a plain tensor of numbers" in refused(path)


def _put(content, mark, offset, new):
    """`content` with other bytes at an offset from where a mark is."""
    at = content.index(mark) + offset
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize("damage", ["size", "place", "pickle"])
def test_a_torch_file_that_lies_of_its_sizes(tmp_path, refused, damage):
    torch = pytest.importorskip("torch")
    path, buffer = tmp_path / "lies.pt", io.BytesIO()
    torch.save(
        {"encoderT.x": torch.zeros(3)}, buffer, _use_new_zipfile_serialization=damage != "pickle"
    )
    content = buffer.getvalue()
    if damage == "size":  # of a member: four gigabytes
        content = _put(content, b"PK\x01\x02", 24, b"\xff\xff\xff\xfe")
    elif damage == "place":  # of the archive's directory
        content = _put(content, b"PK\x06\x06", 49, b"\xff" * 7)
    else:  # a text of two gigabytes
        content = content[:2] + b"X\xff\xff\xff\x7f" + content[2:]
    path.write_bytes(content)
    line = refused(path, gib=1)
    assert f"{path}: truncated, or not a torch checkpoint" in line
    assert "enforce" not in line and "MemoryError" not in line  # nothing so large was asked for


@pytest.mark.parametrize("shape", [(2**40,), (2**26,)])
def test_an_archive_that_unpacks_to_anything(tmp_path, shape):
    """As a teacher: one array that lies about its size, and one of zeros, a thousandth deflated."""
    path = tmp_path / "bomb.npz"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "params/a/b.npy", buffer.getvalue() + bytes(2**28 if shape[0] < 2**30 else 9)
        )
    status, lines = command(read_teacher, [path], gib=0.4)
    assert status == 2 and f"{path}: damaged, or not an .npz weights file" in lines[-1]


def read_teacher(arguments):
    """The reading of `config.teacher.checkpoint`, as a command."""
    return exit_status(lambda: load_sam(arguments[0]) and 0, "stopped")


def test_what_threads_of_the_array_store_say_too_late_is_not_printed():
    import stlm_jax.weights.checkpoint  # noqa: F401
    from stlm_jax.weights import orbax_here

    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", told.append)
        patch.setattr(orbax_here.logging.getLogger("absl"), "filters", [])
        orbax_here.silence()
        for text in ("Event loop is closed", "another"):
            sys.unraisablehook(SimpleUnraisable(RuntimeError(text)))
    assert [str(one.exc_value) for one in told] == ["another"]


class SimpleUnraisable:
    def __init__(self, value):
        self.exc_value = value


def test_what_pillow_warns_of_is_not_printed(tmp_path):
    from test_fuzz_images import SAMPLES

    path = tmp_path / "a.tif"
    path.write_bytes(SAMPLES["wide.tif"][:83])  # cut in its table of tags
    script = f"from stlm_jax.data.images import frame_of; frame_of({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
