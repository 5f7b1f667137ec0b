"""The OpenVINO model against the Flax function that evaluation calls."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from small_student import evaluated, make_images

from conversion import to_openvino
from stlm_jax import __version__
from stlm_jax.inference import Detector
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.digest import weights_digest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
pytest.importorskip("openvino")
pytest.importorskip("jax2onnx")
telemetry = pytest.importorskip("openvino_telemetry.main")

from conversion.onnx import graph  # noqa: E402
from stlm_jax.inference.openvino_model import OpenvinoModel, compiled, from_onnx, read  # noqa: E402


@pytest.fixture(scope="module")
def exported(traced, tmp_path_factory):
    """A student, its folder, figures and graph."""
    student, content = traced
    folder, events = tmp_path_factory.mktemp("exported"), []
    built = ir.from_proto(onnx.load_model_from_string(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "build_graph", lambda trained: built)
        patch.setattr(telemetry.Telemetry, "send_event", lambda *event, **_: events.append(event))
        figures = to_openvino.export_openvino(student, folder / "disc.xml")
    assert not events  # nothing of it is told to anybody
    return student, folder, figures, built


def test_it_is_the_flax_function(exported, relative_error):
    student, folder, figures, _ = exported
    images = make_images(64)
    maps, scores = evaluated(student, images)
    assert relative_error(maps[1:], maps[:-1]) > 0.05
    model = OpenvinoModel(folder / "disc.xml")
    for count in (1, 3):
        found = model(images[:count])
        assert relative_error(found["map"], maps[:count]) <= 1e-4
        assert relative_error(found["score"], scores[:count]) <= 1e-4
    assert set(figures) == {"anomaly_map", "anomaly_score"} and max(figures.values()) <= 1e-4


def test_weights_in_float16_are_computed_with_in_float32(exported, tmp_path, relative_error):
    """OpenVINO's own compression of this model is off by 6 %."""
    student, folder, *_ = exported
    content = ir.to_proto(exported[3]).SerializeToString()
    images = make_images(64)
    maps, scores = evaluated(student, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "build_graph", lambda trained: exported[3])
        figures = to_openvino.export_openvino(student, tmp_path / "disc.xml", "float16")
    model = OpenvinoModel(tmp_path / "disc.xml")
    found = model(images)
    assert 1e-6 < relative_error(found["map"], maps) <= 1e-3
    assert relative_error(found["score"], scores) <= 1e-3 and max(figures.values()) <= 1e-3
    assert model.metadata["precision"] == "float16"
    sizes = [(x / "disc.bin").stat().st_size for x in (tmp_path, folder)]
    assert sizes[0] < 0.52 * sizes[1]
    assert from_onnx(content, {}, tmp_path)[1] == (folder / "disc.bin").read_bytes()


def test_maps_as_dark_as_those_of_good_images(exported, tmp_path, relative_error):
    """A sigmoid that errs by 1e-7 would double them."""
    student, _, _, built = exported
    dark = jax.tree.map(np.copy, student.variables)
    bias = dark["params"]["segmentation"]["head_4"]["bias"]
    model = ir.to_proto(built)
    (tensor,) = (
        x
        for x in model.graph.initializer
        if x.dims == [1] and onnx.numpy_helper.to_array(x) == bias
    )
    bias -= 14  # before the sigmoid
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
    files = from_onnx(model.SerializeToString(), {}, tmp_path)
    images = make_images(64)
    maps, _ = evaluated(dataclasses.replace(student, variables=dark), images)
    assert maps.max() < 1e-4
    assert relative_error(compiled(read(*files))(images)["map"], maps) <= 1e-4


def test_the_detector_runs_and_judges_by_it(exported):
    student, folder, *_ = exported
    images = make_images(64)
    detector = Detector.load(folder / "disc.xml")
    assert (
        detector.description == student.description and detector.calibration == student.calibration
    )
    result = detector(images)
    np.testing.assert_allclose(result.score, evaluated(student, images)[1], rtol=1e-4)
    assert np.array_equal(result.is_anomalous, result.score > detector.threshold)
    with pytest.raises(UserError, match=r"disc\.xml: exported for 64 px, not 96"):
        Detector.load(folder / "disc.xml", image_size=96)


def test_what_the_file_says_of_itself(exported):
    student, folder, *_ = exported
    metadata = OpenvinoModel(folder / "disc.xml").metadata
    assert metadata == {
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
        "file_sha256": metadata["file_sha256"],
    }


def test_what_differs_is_not_written(exported, tmp_path, monkeypatch):
    student, _, _, built = exported

    def constant(images):
        return {"map": np.full((len(images), 64, 64), 0.5), "score": np.full(len(images), 0.5)}

    monkeypatch.setattr(graph, "build_graph", lambda trained: built)
    monkeypatch.setattr(to_openvino, "flax_run", lambda trained: constant)
    with pytest.raises(UserError, match="not written, its anomaly_map differs"):
        to_openvino.export_openvino(student, tmp_path / "out.xml")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copy(exported, tmp_path):
    for suffix in (".xml", ".bin"):
        shutil.copy(exported[1] / f"disc{suffix}", tmp_path / f"copy{suffix}")
    return tmp_path / "copy.xml"


def test_its_two_files_must_be_of_each_other_and_whole(exported, copy):
    weights = copy.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"copy\.xml or \S*copy\.bin: damaged or changed"):
        Detector.load(copy)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"copy\.xml"):
        Detector.load(copy)
    weights.unlink()
    with pytest.raises(UserError, match=r"copy\.bin: there is no such file"):
        Detector.load(copy)


def test_a_threshold_that_was_changed_is_noticed(copy):
    text = copy.read_text()
    assert '<threshold value="0.5"' in text
    copy.write_text(text.replace('<threshold value="0.5"', '<threshold value="0.6"'))
    with pytest.raises(UserError, match=r"copy\.xml or \S*copy\.bin: damaged or changed"):
        Detector.load(copy)


def test_other_files_are_refused(copy):
    copy.write_text("<net/>")
    with pytest.raises(UserError, match=r"copy\.xml: OpenVINO cannot read it"):
        Detector.load(copy)
    import openvino
    from openvino import opset13 as ops

    parameter = ops.parameter([1, 4], np.float32)
    model = openvino.Model([ops.relu(parameter)], [parameter], "foreign")
    openvino.save_model(model, copy)
    with pytest.raises(UserError, match=r"copy\.xml: not a detector exported by conversion\.to_"):
        Detector.load(copy)


def test_the_weights_outlive_their_file(exported):
    xml, weights = ((exported[1] / f"disc{x}").read_bytes() for x in (".xml", ".bin"))
    images = make_images(64)
    model = read(xml, weights)
    del weights
    run = compiled(model)
    assert np.isfinite(run(images)["score"]).all()


# --- the command ---


def test_the_command_wants_an_xml(tmp_path, one_line_of_error):
    line = one_line_of_error(to_openvino.main(["run", str(tmp_path / "out.onnx")]))
    assert "out.onnx: the name must end with .xml" in line
    line = one_line_of_error(to_openvino.main([str(tmp_path / "none"), str(tmp_path / "o.xml")]))
    assert "no such checkpoint" in line


def test_the_command_says_what_it_wrote(exported, tmp_path, monkeypatch, capsys):
    student, _, _, built = exported
    monkeypatch.setattr(graph, "build_graph", lambda trained: built)
    monkeypatch.setattr(to_openvino, "load_exportable", lambda arguments: student)
    path = tmp_path / "disc.xml"
    assert to_openvino.main(["run", str(path), "--no-verify", "--precision=float16"]) == 0
    said = capsys.readouterr().err
    assert f"wrote {path} " in said and "disc.bin of 3.2 MB, float16" in said
    assert Detector.load(path).category == "disc"
