"""The command with a trained run: it finds the model, and says what other ways to it say."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from stand_in import by_path, predict

from stlm_jax.inference import calibration, traced
from stlm_jax.main import main
from stlm_jax.models.stlm import Stlm
from stlm_jax.prediction.model import digest_of, find_model
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.description import Calibration


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicting") / "run"
    shutil.copytree(finished_run / "run", folder)
    calibration.store(folder / "disc", Calibration(0.3, 0.1, 0.25, "held_out", 8))
    return folder


def test_a_run_s_model_judges_as_evaluation_does(run, finished_run, tmp_path, capsys):
    images, out = finished_run / "data/disc/test/spot", tmp_path / "out"
    assert predict(run, images, f"--output={out}") == 2
    assert "--category=disc" in capsys.readouterr().err and not out.exists()
    options = [f"--output={out}", "--category=disc", "--maps=png16", "--batch=2"]
    assert predict(run, images, *options) == 0
    rows = by_path(out, images)
    assert json.loads((out / "predictions.json").read_text())["description"]["category"] == "disc"
    other = tmp_path / "other"
    given = [f"--config.predict.input={images}", f"--config.predict.output={other}"]
    given += ["--config.data.categories=disc", f"--workdir={run}", "--mode=predict"]
    assert main(["main", *given]) == 0
    with open(other / "scores.csv", newline="") as file:
        table = {row["image"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert rows.keys() == table.keys() and len(rows) == 3
    for name, row in rows.items():
        assert row["score"] == pytest.approx(float(table[name]["score"]), abs=1e-5)
        expected = float(table[name]["normalised_score"])
        assert row["normalised_score"] == pytest.approx(expected, abs=1e-5)
        assert (row["verdict"] == "defective") == (table[name]["is_anomalous"] == "True")
        with Image.open(out / row["map"]) as one, Image.open(table[name]["map"]) as two:
            difference = np.asarray(one).astype(int) - np.asarray(two)
        assert difference.shape == (70, 80) and np.abs(difference).max() <= 2
    assert predict(run / "disc", images, *options[:1], *options[2:]) == 0  # the same model
    assert "3 were there already" in capsys.readouterr().err


def test_a_second_start_traces_nothing(run, finished_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(run, tmp_path / "run")
    images = finished_run / "data/disc/test/spot"
    assert predict(run / "disc", images, f"--output={tmp_path / 'first'}") == 0
    traced._read.cache_clear()  # as in another process
    monkeypatch.setattr(Stlm, "__call__", None)
    assert predict(run / "disc", images, f"--output={tmp_path / 'second'}") == 0
    first, second = (by_path(tmp_path / name, images) for name in ("first", "second"))
    assert [row["score"] for row in first.values()] == [row["score"] for row in second.values()]
    # What the checkpoint holds is still held against what the configuration says.
    for step in (run / "disc/checkpoints").iterdir():
        shutil.rmtree(step)
    other = tmp_path / "other"
    with Checkpoints(run / "disc/checkpoints") as checkpoints:
        checkpoints.save(1, {"params": {"a": np.zeros(3, np.float32)}}, {"b": np.zeros(3)}, {})
    assert predict(run / "disc", images, f"--output={other}") == 2
    assert "checkpoint of another model" in capsys.readouterr().err


def test_a_model_is_found_and_told_from_others(run, tmp_path):
    assert find_model(str(run), "ring") == run / "ring"
    assert find_model(str(run / "disc")) == find_model(str(run / "disc/checkpoints"))
    for name, category, word in (
        (run, "bottle", "has disc, ring"),
        (run / "disc", "ring", "no workdir"),
        (tmp_path / "none", "", "no such file"),
    ):
        with pytest.raises(UserError, match=word):
            find_model(str(name), category)
    shutil.copytree(run, tmp_path / "copy")
    copy = tmp_path / "copy"
    assert digest_of(copy / "disc") == digest_of(run / "disc") != digest_of(run / "ring")
    calibration.store(copy / "disc", Calibration(0.31, 0.1, 0.25, "held_out", 8))
    assert digest_of(copy / "disc") != digest_of(run / "disc")
    file = tmp_path / "x.stablehlo"
    file.write_bytes(b"program")
    alone = digest_of(file)
    (tmp_path / "x.stablehlo.json").write_text("{}")
    described = digest_of(file)
    (tmp_path / "fa.pt").write_bytes(b"fa")
    assert len({alone, described, digest_of(file, str(tmp_path / "fa.pt"))}) == 3
