"""The ONNX file against the Flax function that evaluation calls."""

import collections
import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import traverse_util
from golden_vectors import stlm_variables
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_student import evaluated, make_images, make_student

from conversion import to_onnx
from stlm_jax import __version__
from stlm_jax.config import default
from stlm_jax.data.images import load_images
from stlm_jax.inference.trained_model import TrainedModel, load_trained
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration
from stlm_jax.weights.digest import weights_digest
from stlm_jax.weights.file import write_weights

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
pytest.importorskip("jax2onnx")

from conversion.exports.images import run_records  # noqa: E402
from conversion.onnx import export  # noqa: E402
from conversion.onnx.float16 import to_float16  # noqa: E402
from conversion.onnx.graph import build_graph  # noqa: E402
from stlm_jax.inference.onnx_model import OnnxModel, open_session, run  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SIZES = (64, 96)


@pytest.fixture(scope="module")
def case(traced):
    """By size: a student, its float32 graph, images, and evaluation's maps and scores of them."""

    @functools.cache
    def of(size):
        images = make_images(size)
        if size == 64:
            student, content = traced
            model = ir.from_proto(onnx.load_model_from_string(content))
        else:  # its maps are as dark as those of good images, 1e-6
            student = make_student(size, map_bias=-14.0)
            model = build_graph(student)
        return student, model, images, evaluated(student, images)

    return of


def copy_of(model):
    return ir.from_proto(ir.to_proto(model))


def differences(model, images, expected, relative_error):
    """Relative error of the map and of the score, at batch 1 and 3."""
    session = open_session(ir.to_proto(model).SerializeToString())
    return [
        relative_error(actual, wanted[:count])
        for count in (1, 3)
        for actual, wanted in zip(run(session, images[:count]).values(), expected, strict=True)
    ]


@pytest.mark.parametrize("size", SIZES)
def test_float32_is_the_flax_function(case, size, relative_error):
    _, model, images, expected = case(size)
    maps, _ = expected
    assert relative_error(maps[1:], maps[:-1]) > 0.05  # there is something to miss
    assert max(differences(model, images, expected, relative_error)) <= 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_inputs_outputs_and_nothing_outside_the_file(case, size):
    student, model, _, _ = case(size)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)

    def described(values):
        return {
            value.name: (
                onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            )
            for value in values
        }

    assert described(proto.graph.input) == {"image": ("UINT8", ["N", size, size, 3])}
    assert described(proto.graph.output) == {
        "anomaly_map": ("FLOAT", ["N", size, size]),
        "anomaly_score": ("FLOAT", ["N"]),
    }
    assert {opset.domain for opset in proto.opset_import} == {""}
    tensors = proto.graph.initializer
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in tensors)
    kept = sum(np.prod(tensor.dims) for tensor in tensors if tensor.data_type == 1)
    assert kept > 0.9 * sum(leaf.size for leaf in _leaves(student.variables["params"]))


def test_normalisations_are_folded_and_fused(case):
    student, model, _, _ = case(64)
    count = collections.Counter(node.op_type for node in model.graph)
    statistics = sum(path.endswith("mean") for path in _paths(student.variables["batch_stats"]))
    scales = sum(path.endswith("scale") for path in _paths(student.variables["params"]))
    assert count["Sub"] == 1  # the pixels' mean
    unused = 1  # the decoder's last normalisation of the tokens
    assert count["LayerNormalization"] == scales - statistics - unused > 20
    assert statistics > 40


@pytest.mark.parametrize("size", SIZES)
def test_float16(case, size, relative_error):
    _, model, images, expected = case(size)
    model = copy_of(model)
    to_float16(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = differences(model, images, expected, relative_error)
    assert 1e-5 < max(found) <= 1e-2
    weights = [
        x.const_value for x in model.graph.initializers.values() if x.const_value.size > 1000
    ]
    halves = [x for x in weights if x.dtype == ir.DataType.FLOAT16]
    assert sum(x.size for x in halves) > 0.9 * sum(x.size for x in weights)
    for node in model.graph:
        if node.op_type in ("Softmax", "ReduceSum", "ReduceSumSquare", "Exp", "TopK"):
            assert {x.dtype for x in node.inputs if x.const_value is None} == {ir.DataType.FLOAT}


def test_metadata(case, tmp_path, monkeypatch):
    student, model, images, expected = case(64)
    monkeypatch.setattr(export, "build_graph", lambda trained: copy_of(model))
    path = tmp_path / "student.onnx"
    found = export.export_onnx(student, path)
    assert set(found) == {"anomaly_map", "anomaly_score"}
    assert list(tmp_path.iterdir()) == [path]
    exported = OnnxModel(path)
    assert exported.metadata == {
        "format": "stlm_jax",
        "format_version": "1",
        "version": __version__,
        "category": "disc",
        "image_size": "64",
        "geometry": "squash",
        "score_top_k": "100",
        "depth": "file",
        "threshold": "0.5",
        "normaliser": "0.0625",
        "pixel_threshold": "0.375",
        "calibration_source": "held_out",
        "calibration_images": "8",
        "precision": "float32",
        "weights_sha256": weights_digest(student.variables),
        "file_sha256": exported.metadata["file_sha256"],
    }
    assert exported.description == student.description
    assert exported.description.calibration == Calibration(0.5, 0.0625, 0.375, "held_out", 8)
    for actual, wanted in zip(exported(images).values(), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4)


def test_the_digest_is_of_the_values_not_of_their_order():
    variables = {"params": {"b": np.ones((2, 3)), "a": np.zeros(2)}}
    same = {"params": {"a": np.zeros(2, np.float32), "b": np.asfortranarray(np.ones((2, 3)))}}
    assert weights_digest(variables) == weights_digest(same)
    for change in ({"b": np.ones((3, 2))}, {"a": np.full(2, 1e-30)}, {"a": np.zeros(3)}):
        other = {"params": {**variables["params"], **change}}
        assert weights_digest(other) != weights_digest(variables)


@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_a_corrupted_weight_leaves_no_file(case, tmp_path, monkeypatch, factor):
    student, model, _, _ = case(64)
    model = copy_of(model)
    kernel = max(model.graph.initializers.values(), key=lambda x: x.const_value.size)
    kernel.const_value = ir.tensor(
        (kernel.const_value.numpy() * np.float32(factor)), name=kernel.name
    )
    monkeypatch.setattr(export, "build_graph", lambda trained: model)
    path = tmp_path / "student.onnx"
    with pytest.raises(UserError, match=r"student\.onnx: not written, its anomaly_map differs"):
        export.export_onnx(student, path)
    assert not list(tmp_path.iterdir())
    assert export.export_onnx(student, path, verify=False) == {}
    assert path.is_file()


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: there is no such file"):
        OnnxModel(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x0a" + b"no model" * 20)
    with pytest.raises(UserError, match=r"broken\.onnx: onnxruntime cannot read it"):
        OnnxModel(broken)
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["image"], ["map"])
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], "foreign", [value], [other]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign\.onnx: not a detector"):
        OnnxModel(tmp_path / "foreign.onnx")


# --- the command ---


@pytest.mark.slow
def test_int8_from_a_run(finished_run, tmp_path):
    checkpoint, path = finished_run / "run" / "disc", tmp_path / "disc.onnx"
    process = subprocess.run(
        [sys.executable, "-m", "conversion.to_onnx", str(checkpoint), str(path)]
        + ["--precision=int8"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.returncode == 0, process.stderr
    model = OnnxModel(path)
    assert (model.description.category, model.description.image_size) == ("disc", 64)
    assert model.metadata["precision"] == "int8"
    kernels = [x for x in onnx.load(path).graph.initializer if x.data_type == onnx.TensorProto.INT8]
    assert sum(np.prod(x.dims) for x in kernels if len(x.dims) > 1) > 100_000
    trained = load_trained(checkpoint)
    records = run_records(trained, "test")
    labels = [record.label for record in records]
    images = load_images(records, 64)
    scores = {"int8": model(images)["score"], "float32": evaluated(trained, images)[1]}
    area = {name: roc_auc_score(labels, score) for name, score in scores.items()}
    loss = area["float32"] - area["int8"]
    assert f"image_auroc {area['int8']:.4f} (loss {loss:+.4f})" in process.stderr


def test_int8_from_a_weights_file_and_a_folder_of_images(case, tmp_path, monkeypatch, capsys):
    student, model, images, _ = case(64)
    monkeypatch.setattr(export, "build_graph", lambda trained: copy_of(model))
    flat = traverse_util.flatten_dict(student.variables, sep="/")
    tensors = [(name, x.shape, np.float32, lambda x=x: x) for name, x in flat.items()]
    metadata = {"kind": "stlm", "category": "disc", "image_size": "64"}
    write_weights(tmp_path / "disc.safetensors", tensors, metadata)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    path = tmp_path / "disc.onnx"
    command = [str(tmp_path / "disc.safetensors"), str(path), "--precision=int8"]
    assert to_onnx.main(command) == 2
    assert "give a folder of some, --calibration=DIR" in capsys.readouterr().err
    assert to_onnx.main([*command, f"--calibration={tmp_path}"]) == 0
    report = capsys.readouterr().err
    assert "on calibration images with a square of noise: anomaly_map" in report
    assert "loss of AUROC: not measured" in report
    assert OnnxModel(path).metadata["weights_sha256"] == weights_digest(student.variables)


def test_calibration_by_an_empty_folder(finished_run, tmp_path, capsys):
    command = [str(finished_run / "run" / "disc"), str(tmp_path / "disc.onnx"), "--precision=int8"]
    (tmp_path / "empty").mkdir()
    assert to_onnx.main([*command, f"--calibration={tmp_path / 'empty'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "empty: holds no image" in error
    assert not (tmp_path / "disc.onnx").exists()


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert to_onnx.main([str(tmp_path / "none"), str(tmp_path / "out.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "none" in error


@pytest.mark.slow
def test_published_widths(relative_error):
    student = make_student(256, teacher="mobile_sam", encoder="tiny_vit_5m")
    images = make_images(256)
    expected = evaluated(student, images)
    model = build_graph(student)
    assert max(differences(model, images, expected, relative_error)) <= 1e-4
    to_float16(model)
    assert max(differences(model, images, expected, relative_error)) <= 1e-2


@pytest.mark.slow
def test_golden_map_and_scores(golden, tmp_path, relative_error):
    torch = pytest.importorskip("torch")
    config = default()
    model = build_stlm(config)
    layouts = ("stlm_twostream", "stlm_segmentation")
    tensors = [golden.state_dict(golden.load_manifest(name), seed=0) for name in layouts]
    student = TrainedModel(model, stlm_variables(*tensors, model), config)
    export.export_onnx(student, tmp_path / "published.onnx")
    images = golden.image(1024, 1024, 2, batch=2)
    maps, scores = OnnxModel(tmp_path / "published.onnx")(images)
    with np.load(golden.folder / "stlm_eval_1024.npz") as expected:
        full = torch.nn.functional.interpolate(
            torch.from_numpy(expected["fa"]), size=(1024, 1024), mode="bilinear"
        )
        assert relative_error(maps, full[:, 0]) <= 1e-4
        assert relative_error(scores, expected["image_score"]) <= 1e-4


def _paths(tree, prefix=""):
    for name, value in tree.items():
        path = f"{prefix}/{name}"
        yield from _paths(value, path) if isinstance(value, dict) else [path]


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]
