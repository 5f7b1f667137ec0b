"""What an evaluation writes, by the command line on a finished run."""

import csv
import json
import shutil

import pytest
from miniature import CATEGORIES

from stlm_jax.commands import compare_runs
from stlm_jax.main import main
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
    assert list(details["categories"]) == list(CATEGORIES)
    assert details["protocol"]["resolution"] == "image_size"
    assert details["protocol"]["step of disc"] == 6
    for category, known in details["categories"].items():
        assert known["images"] == {"good": 2, "defective": 3}
        assert list(known["metrics"]) == list(metrics[category])
        for name, about in known["metrics"].items():
            assert about["value"] == metrics[category][name]
            low, high = about["interval"]
            assert 0 <= low <= high <= 1 and about["error_bound"] < 1e-4
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
