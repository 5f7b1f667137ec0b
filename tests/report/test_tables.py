import json
import math
import os

import pytest

from stlm_jax.evaluation.results import with_mean
from stlm_jax.report.tables import format_table, read_results, write_tables
from stlm_jax.runtime import files
from stlm_jax.runtime.errors import UserError

RESULTS = {
    "bottle": {"image_auroc": 1.0, "pixel_ap": 0.8125, "aupro_0.05": 0.5},
    "metal_nut": {"image_auroc": 0.9826, "pixel_ap": 0.4375, "aupro_0.05": math.nan},
}


def test_table_as_printed():
    assert format_table(RESULTS) == (
        "| category  | image AUROC |  pixel AP | AUPRO 0.05 |\n"
        "| --------- | ----------: | --------: | ---------: |\n"
        "| bottle    |      100.00 |     81.25 |      50.00 |\n"
        "| metal_nut |       98.26 |     43.75 |          - |\n"
        "| **mean**  |   **99.13** | **62.50** |          - |\n"
    )


def test_mean_needs_every_category():
    mean = with_mean(RESULTS)["mean"]
    assert mean["image_auroc"] == pytest.approx(0.9913)
    assert mean["pixel_ap"] == 0.625
    assert math.isnan(mean["aupro_0.05"])


def test_a_metric_missing_from_one_category_has_no_mean():
    mean = with_mean({"a": {"aupro": 0.5}, "b": {"pixel_ap": 0.5}})["mean"]
    assert all(map(math.isnan, mean.values()))
    assert list(mean) == ["aupro", "pixel_ap"]


def test_a_stale_mean_is_neither_kept_nor_averaged():
    stale = {"mean": {"image_auroc": 0.0}, **RESULTS}
    assert list(with_mean(stale)) == ["bottle", "metal_nut", "mean"]
    assert with_mean(stale)["mean"]["image_auroc"] == pytest.approx(0.9913)


@pytest.mark.parametrize("nothing", [{}, {"mean": {"aupro": 1.0}}])
def test_no_category(nothing, tmp_path):
    for act in (with_mean, format_table, lambda results: write_tables(tmp_path, results)):
        with pytest.raises(UserError, match="no category"):
            act(nothing)
    assert not list(tmp_path.iterdir())


def test_json_is_strict(tmp_path):
    path, table, _ = write_tables(tmp_path / "new" / "run", RESULTS)

    def refuse(constant):
        raise AssertionError(constant)

    loaded = json.loads(path.read_text(), parse_constant=refuse)
    assert list(loaded) == ["bottle", "metal_nut", "mean"]
    assert loaded["metal_nut"] == {"image_auroc": 0.9826, "pixel_ap": 0.4375, "aupro_0.05": None}
    assert table.read_text() == format_table(RESULTS)
    assert sorted(os.listdir(path.parent)) == ["metrics.json", "table.csv", "table.md"]


def test_the_same_rows_in_csv_and_what_the_table_ends_with(tmp_path):
    _, table, csv = write_tables(tmp_path, RESULTS, "\nCost: none.\n")
    assert table.read_text() == format_table(RESULTS) + "\nCost: none.\n"
    assert csv.read_text() == (
        "category,image AUROC,pixel AP,AUPRO 0.05\n"
        "bottle,100.00,81.25,50.00\n"
        "metal_nut,98.26,43.75,\n"
        "mean,99.13,62.50,\n"
    )


def test_results_come_back(tmp_path):
    path, *_ = write_tables(tmp_path, RESULTS)
    found = read_results(path)
    assert found["bottle"] == RESULTS["bottle"]
    assert math.isnan(found["metal_nut"]["aupro_0.05"])


@pytest.mark.parametrize("text", ["", "[1]", '{"bottle": 1}', '{"bottle": {"aupro": "high"}}'])
def test_unreadable_results(text, tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(UserError, match="cannot read .*metrics.json"):
        read_results(path)
    path.write_text(text)
    with pytest.raises(UserError, match="metrics.json does not hold results"):
        read_results(path)


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path, *_ = write_tables(tmp_path, RESULTS)
    before = path.read_bytes()

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_tables(tmp_path, {"bottle": {"image_auroc": 0.5}})
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["metrics.json", "table.csv", "table.md"]
