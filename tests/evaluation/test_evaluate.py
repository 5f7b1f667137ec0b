"""What an evaluation writes, by the command line on a finished run."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from miniature import CATEGORIES
from PIL import Image

from stlm_jax.commands import compare_runs
from stlm_jax.main import main
from stlm_jax.report.replicates import read_replicates
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse

PAPER = "The paper's own figures, on MVTec AD, not measured here: pixel AUROC 98.26, PRO 94.92, "


def evaluate(place, workdir, *options):
    config = f"--config={place / 'tiny.py'}"
    return main(["main", config, f"--workdir={workdir}", "--mode=evaluate", *options])


def read(run, name):
    return json.loads((run / "results" / name).read_text())


def test_every_file_of_the_results(finished_run):
    run = finished_run / "run"
    found = {path.name for path in (run / "results").iterdir() if path.is_file()}
    assert found >= {"metrics.json", "details.json", "table.md", "table.csv", "report.html"}
    metrics, details = read(run, "metrics.json"), read(run, "details.json")
    replicates = read_replicates(run / "results/replicates.npz")
    assert list(details["categories"]) == list(replicates) == list(CATEGORIES)
    assert details["protocol"]["resolution"] == "image_size"
    assert details["protocol"]["step of disc"] == 6
    for category, known in details["categories"].items():
        assert known["images"] == {"good": 2, "defective": 3} and replicates[category].images == 5
        assert list(known["metrics"]) == list(metrics[category])
        for name, about in known["metrics"].items():
            assert about["value"] == metrics[category][name]
            low, high = about["interval"]
            assert 0 <= low <= high <= 1 and about["error_bound"] < 1e-4
            drawn = np.quantile(replicates[category].metrics[name], [0.025, 0.975])
            assert (low, high) == pytest.approx(drawn, abs=1e-6)
        assert list(known["by_defect"]) == ["spot"]
        # There is only one kind of defect, and it is all that the category has.
        assert known["by_defect"]["spot"] == pytest.approx(metrics[category], abs=1e-9)
        stored = json.loads((run / category / "calibration.json").read_text())
        assert known["calibration"]["threshold"] == stored["threshold"]
        kinds = ("false_alarm", "miss")
        rates = {f"{level}_{kind}_rate" for level in ("image", "pixel") for kind in kinds}
        assert set(known["rates"]) == rates
    cost = details["cost"]
    assert cost["device"] == "cpu" and cost["batch_size"] == 4 and cost["latency_ms"] > 0
    text = (run / "results/table.md").read_text()
    assert f"Cost: {cost['parameters'] / 1e6:.2f} M parameters" in text and PAPER in text
    rows = list(csv.DictReader((run / "results/table.csv").open()))
    assert [row["category"] for row in rows] == [*CATEGORIES, "mean"]
    for row in rows:
        assert float(row["pixel AUROC"]) == pytest.approx(
            100 * metrics[row["category"]]["pixel_auroc"], abs=0.006
        )


@pytest.mark.parametrize("resolution", ["native", "32"])
def test_another_resolution_and_no_latency(finished_run, tmp_path, resolution):
    run = tmp_path / "run"
    shutil.copytree(finished_run / "run", run)
    options = [f"--config.evaluate.resolution={resolution}", "--config.evaluate.latency_runs=0"]
    options += ["--config.data.categories=disc", "--config.evaluate.panels=0"]
    assert evaluate(finished_run, run, *options) == 0
    before, after = read(finished_run / "run", "metrics.json"), read(run, "metrics.json")
    assert after["disc"]["image_auroc"] == before["disc"]["image_auroc"]
    assert after["disc"]["pixel_auroc"] != before["disc"]["pixel_auroc"]
    assert after["disc"]["pixel_auroc"] == pytest.approx(before["disc"]["pixel_auroc"], abs=0.05)
    details = read(run, "details.json")
    assert details["protocol"]["resolution"] == resolution
    assert details["cost"]["latency_ms"] is None
    assert "ms an image in batches" not in (run / "results/table.md").read_text()


def test_runs_of_two_seeds_make_a_table(finished_run, tmp_path, capsys):
    runs = [finished_run / "run", tmp_path / "other"]
    shutil.copytree(runs[0], runs[1])
    config = json.loads((runs[1] / "config.json").read_text())
    (runs[1] / "config.json").write_text(json.dumps(config | {"seed": 7}))
    command = ["over_seeds", *map(str, runs), f"--out={tmp_path / 'table'}"]
    assert compare_runs.main(command) == 0
    assert "± 0.00" in capsys.readouterr().out
    found = json.loads((tmp_path / "table/seeds.json").read_text())
    assert found["seeds"] == [0, 7]
    expected = read(runs[0], "metrics.json")["disc"]["pixel_auroc"]
    assert found["results"]["disc"]["pixel_auroc"]["values"] == [expected] * 2


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("resolution=own", "resolution=own: must be image_size, native or a number of pixels"),
        ("resolution=8", "resolution=8: must be image_size, native or a number of pixels"),
        ("latency_runs=-1", "latency_runs=-1: must be 0 or more"),
    ],
)
def test_what_evaluation_cannot_do_is_refused(finished_run, option, expected):
    with pytest.raises(UserError) as error:
        parse(["main", f"--config={finished_run / 'tiny.py'}", f"--config.evaluate.{option}"])
    assert expected in str(error.value)


def test_evaluation_looks_at_the_data_before_anything_else(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run / "data", tmp_path / "data")
    shutil.copytree(finished_run / "run", tmp_path / "run")
    disc = tmp_path / "data/disc"
    (disc / "test/spot/9.heic").write_bytes(b"")
    (disc / "train/good/000.png").write_bytes(b"")  # of which only training would have need
    mask = np.zeros((140, 160), np.uint8)
    mask[40:88, 48:100] = 255
    Image.fromarray(mask).save(disc / "ground_truth/spot/000_mask.png")
    options = [f"--config.data.root={tmp_path / 'data'}", "--config.data.categories=disc",
               "--config.evaluate.panels=0", "--config.evaluate.latency_runs=0"]  # fmt: skip
    assert evaluate(finished_run, tmp_path / "run", *options) == 0
    said = capsys.readouterr().err
    before = read(finished_run / "run", "metrics.json")["disc"]
    after = read(tmp_path / "run", "metrics.json")["disc"]
    assert after["pixel_auroc"] == pytest.approx(before["pixel_auroc"], abs=0.02)
    for line in (r"spot: 1 not read, of a format .*\(9\.heic\)", r"cannot read .*good/000\.png",
                 r"000_mask\.png is 160x140, its image 80x70: it is resized"):  # fmt: skip
        assert re.search(rf"^warning: .*{line}", said, re.MULTILINE)

    Image.fromarray(mask[:, :140]).save(disc / "ground_truth/spot/000_mask.png")
    shutil.rmtree(tmp_path / "run/results")
    assert evaluate(finished_run, tmp_path / "run", *options) == 2
    *_, ending = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: .*000_mask\.png is 140x140, its image 80x70, which is .*", ending)
    assert not (tmp_path / "run/results").exists()
