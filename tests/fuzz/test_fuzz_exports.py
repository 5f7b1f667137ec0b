"""Damaged exports and what lies beside them: refused in a line, or the very model that it was."""

import io
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from damage import damaged, damaged_json
from hypothesis import given
from hypothesis import strategies as st
from outcome import budget, refusal

from stlm_jax.inference import Detector
from stlm_jax.inference.onnx_model import INPUT, NO_DIGEST, OUTPUTS, with_digest
from stlm_jax.inference.stablehlo_model import file_digest
from stlm_jax.weights.description import Calibration, Description, export_metadata, text_values
from stlm_jax.weights.digest import FILE
from stlm_jax.weights.sidecar import write_sidecar

SIDE = 32
KNOWN = Description(
    "disc", SIDE, score_top_k=9, calibration=Calibration(0.5, 0.1, 0.5, "held_out", 8)
)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
KERNEL = np.random.default_rng(1).random((SIDE, SIDE, 3), np.float32) / 999


def said(**more):
    return export_metadata(KNOWN, {"params": {"kernel": KERNEL}}, "float32") | more


def onnx_bytes(digest=True) -> bytes:
    """A detector of a few operations, sealed as `conversion.to_onnx` seals its own."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", [INPUT], ["x"], to=kinds.FLOAT),
        helper.make_node("Mul", ["x", "kernel"], ["y"]),
        helper.make_node("ReduceSum", ["y", "last"], [OUTPUTS[0]], keepdims=0),
        helper.make_node("ReduceMean", [OUTPUTS[0], "both"], [OUTPUTS[1]], keepdims=0),
    ]
    constants = {"kernel": KERNEL, "last": np.array([3]), "both": np.array([1, 2])}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info(INPUT, kinds.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info(OUTPUTS[0], kinds.FLOAT, ["N", SIDE, SIDE]),
            helper.make_tensor_value_info(OUTPUTS[1], kinds.FLOAT, ["N"]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    sealed = {FILE: NO_DIGEST} if digest else {}
    helper.set_model_props(model, text_values(said()) | sealed)
    content = model.SerializeToString()
    return with_digest(content) if digest else content


def write_openvino(folder):
    pytest.importorskip("openvino")
    from stlm_jax.inference.openvino_model import from_onnx

    xml, weights = from_onnx(onnx_bytes(False), text_values(said()), folder)
    (folder / "disc.xml").write_bytes(xml)
    (folder / "disc.bin").write_bytes(weights)
    return folder / "disc.xml"


def write_stablehlo(folder):
    def call(image):
        maps = (image * KERNEL).sum(-1)
        return maps, maps.mean((1, 2))

    shape = jax.export.symbolic_shape(f"n, {SIDE}, {SIDE}, 3")
    exported = jax.export.export(jax.jit(call), platforms=["cpu"])(
        jax.ShapeDtypeStruct(shape, np.uint8)
    )
    content = bytes(exported.serialize())
    path = folder / "disc.stablehlo"
    path.write_bytes(content)
    write_sidecar(path, said(**{FILE: file_digest(content)}))
    return path


def write_onnx(folder):
    path = folder / "disc.onnx"
    path.write_bytes(onnx_bytes())
    return path


WRITE = {"onnx": write_onnx, "xml": write_openvino, "stablehlo": write_stablehlo}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """By kind: the file's path, those beside it, and what the model says of some pixels."""
    found = {}
    for kind, write in WRITE.items():
        folder = tmp_path_factory.mktemp(kind)
        path = write(folder)
        files = {p: p.read_bytes() for p in folder.iterdir() if p.stem.startswith("disc")}
        found[kind] = SimpleNamespace(path=path, files=files, whole=detected(path))
    return found


def detected(path):
    detector = Detector.load(path)
    found = detector(PIXELS)
    return detector.description, found.score, found.anomaly_map


def check(one, kind):
    found, told = refusal(kind, lambda: detected(one.path), "disc")
    if found is None:
        return
    described, score, maps = one.whole
    if found[0] == described and np.array_equal(found[1], score) and np.array_equal(found[2], maps):
        return
    assert "carries no digest" in told, "another model in silence"
    assert np.isfinite(found[1]).all() and np.isfinite(found[2]).all()


def restore(one):
    for path, content in one.files.items():
        path.write_bytes(content)


@pytest.mark.parametrize("kind", list(WRITE))
@budget(30, 1500)
@given(data=st.data())
def test_a_damaged_export(exports, kind, data):
    one = exports[kind]
    file = data.draw(st.sampled_from(sorted(one.files)))
    try:
        if data.draw(st.integers(0, 19)) == 0:
            file.unlink()
        elif file.suffix == ".json" and data.draw(st.booleans()):
            file.write_bytes(data.draw(damaged_json(json.loads(one.files[file]))))
        else:
            file.write_bytes(data.draw(damaged(one.files[file])))
        check(one, kind)
    finally:
        restore(one)


VALUES = st.one_of(
    st.sampled_from(["", "nan", "inf", "1e400", "-1", "0", "7", "33", str(10**30), "x", "1_0"]),
    st.text(max_size=9), st.integers(-(2**70), 2**70).map(str), st.floats().map(str),
)  # fmt: skip


@budget(30, 1500)
@given(names=st.lists(st.sampled_from(sorted(text_values(said()))), min_size=1), data=st.data())
def test_metadata_of_any_values_under_a_right_digest(exports, names, data):
    """A digest says that a file is as it was written, not that somebody sensible wrote it."""
    onnx = pytest.importorskip("onnx")
    one = exports["onnx"]
    model = onnx.load_model_from_string(one.files[one.path])
    for entry in model.metadata_props:
        if entry.key in names:
            entry.value = data.draw(VALUES).encode("utf-8", "replace").decode()
        if entry.key == FILE:
            entry.value = NO_DIGEST
    one.path.write_bytes(with_digest(model.SerializeToString()))
    try:
        found, _ = refusal("metadata", lambda: detected(one.path), one.path)
    finally:
        restore(one)
    if found is not None:
        assert np.isfinite(found[1]).all() and found[0].image_size == SIDE
        assert found[0].score_top_k >= 1


@budget(30, 1500)
@given(data=st.data())
def test_a_description_of_any_values(data):
    """What `from_torch`, exports and run folders store of a model, read from JSON."""
    values = json.loads(json.dumps(said()))
    text = data.draw(damaged_json(values))
    try:
        changed = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(changed, dict):
        return
    found, _ = refusal("description", lambda: Description.read("disc", changed), "disc")
    if found is not None:
        assert found.image_size % 16 == 0 < found.image_size and found.score_top_k >= 1
        assert isinstance(found.category, str)
        io.BytesIO(found.category.encode("utf-8", "backslashreplace"))
