"""The StableHLO file against the Flax function that evaluation calls."""

import hashlib
import json
import re

import jax
import numpy as np
import pytest
from small_student import evaluated, make_images, make_student

from conversion import to_stablehlo
from stlm_jax import __version__
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration
from stlm_jax.weights.digest import weights_digest


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    calibration = Calibration(0.25, 0.5, 0.75, "training", 5)
    student = make_student(64, category="disc", calibration=calibration)
    path = tmp_path_factory.mktemp("exported") / "disc.stablehlo"
    return student, path, to_stablehlo.export_stablehlo(student, path)


def test_any_batch_is_the_flax_function(exported, relative_error):
    student, path, found = exported
    function = jax.export.deserialize(bytearray(path.read_bytes()))
    images = make_images(64)
    expected = evaluated(student, images)
    for count in (1, 3):
        for actual, wanted in zip(function.call(images[:count]), expected, strict=True):
            assert relative_error(actual, wanted[:count]) <= 1e-5
    assert set(found) == {"anomaly_map", "anomaly_score"} and max(found.values()) <= 1e-5


def test_every_platform_and_nothing_but_the_image(exported):
    _, path, _ = exported
    function = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    (image,) = function.in_avals
    assert image.dtype == np.uint8 and [str(d) for d in image.shape] == ["N", "64", "64", "3"]
    assert [(str(x.dtype), str(x.shape)) for x in function.out_avals] == [
        ("float32", "(N, 64, 64)"),
        ("float32", "(N,)"),
    ]


def test_description(exported):
    student, path, _ = exported
    described = json.loads(path.with_name("disc.stablehlo.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", described.pop("content_sha256"))
    assert described == {
        "format": "stlm_jax",
        "format_version": 1,
        "version": __version__,
        "category": "disc",
        "image_size": 64,
        "geometry": "squash",
        "score_top_k": 100,
        "depth": "file",
        "threshold": 0.25,
        "normaliser": 0.5,
        "pixel_threshold": 0.75,
        "calibration_source": "training",
        "calibration_images": 5,
        "precision": "float32",
        "weights_sha256": weights_digest(student.variables),
        "platforms": ["cpu", "cuda", "tpu"],
        "input": "image",
        "outputs": ["anomaly_map", "anomaly_score"],
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_what_differs_is_not_written(exported, tmp_path, monkeypatch):
    student, *_ = exported

    def constant(images):
        return {"map": np.full((len(images), 64, 64), 0.5), "score": np.full(len(images), 0.5)}

    monkeypatch.setattr(to_stablehlo, "flax_run", lambda trained: constant)
    with pytest.raises(UserError, match="not written, its anomaly_map differs"):
        to_stablehlo.export_stablehlo(student, tmp_path / "out", ["cpu"])
    assert not list(tmp_path.iterdir())


# --- the command ---


def test_the_command_writes_for_one_platform(finished_run, tmp_path, capsys):
    path = tmp_path / "disc.stablehlo"
    checkpoint = str(finished_run / "run" / "disc")
    command = [checkpoint, str(path), "--image_size=96", "--platforms=tpu"]
    assert to_stablehlo.main(command) == 0
    assert "not compared" in capsys.readouterr().err
    function = jax.export.deserialize(bytearray(path.read_bytes()))
    assert function.platforms == ("tpu",)
    assert function.in_avals[0].shape[1:] == (96, 96, 3)


def test_an_unknown_platform_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        to_stablehlo.main(["none", str(tmp_path / "out"), "--platforms=cpu,metal"])
    assert error.value.code == 2 and "'metal' is none of cpu, cuda, tpu" in capsys.readouterr().err
