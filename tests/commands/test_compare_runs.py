"""The table over seeds, from runs written by hand."""

import json
import math

import pytest

from stlm_jax.commands.compare_runs import main

PROTOCOL = {"resolution": "image_size", "score_top_k": 100, "step of bottle": 9}


def write_run(folder, seed, aupro=0.5, auroc=0.75, config=None, protocol=None):
    (folder / "results").mkdir(parents=True)
    content = {"seed": seed, "train": {"steps": 9, "batch_size": 2}, **(config or {})}
    (folder / "config.json").write_text(json.dumps(content))
    values = {"image_auroc": auroc, "aupro": aupro}
    metrics = {"bottle": values, "mean": values}
    (folder / "results/metrics.json").write_text(json.dumps(metrics))
    details = {"protocol": PROTOCOL | (protocol or {})}
    (folder / "results/details.json").write_text(json.dumps(details))
    return folder


def tabulate(*runs, out):
    return main(["compare_runs", *map(str, runs), f"--out={out}"])


def test_mean_and_sample_deviation(tmp_path, capsys):
    runs = [
        write_run(tmp_path / f"s{seed}", seed, auroc=auroc, aupro=aupro)
        for seed, (auroc, aupro) in enumerate([(0.90, 0.5), (0.93, None), (0.96, 0.7)])
    ]
    assert tabulate(*runs, out=tmp_path / "out") == 0
    table = (tmp_path / "out/table.md").read_text()
    assert capsys.readouterr().out == table
    lines = table.splitlines()
    assert lines[0].split("|")[1:-1] == [" category ", "  image AUROC ", " AUPRO "]
    assert lines[2] == "| bottle   | 93.00 ± 3.00 |     - |"  # one run has no AUPRO
    assert lines[3] == "| **mean** | 93.00 ± 3.00 |     - |"
    assert "over 3 seeds (0, 1, 2), in per cent" in table
    assert "The paper's own figures, on MVTec AD, not measured here: pixel AUROC 98.26" in table
    assert (tmp_path / "out/table.csv").read_text().splitlines() == [
        "category,image AUROC,image AUROC std,AUPRO,AUPRO std",
        "bottle,93.00,3.00,,",
        "mean,93.00,3.00,,",
    ]
    found = json.loads((tmp_path / "out/seeds.json").read_text())
    assert found["seeds"] == [0, 1, 2] and found["runs"] == list(map(str, runs))
    bottle = found["results"]["bottle"]
    assert bottle["image_auroc"]["values"] == [0.90, 0.93, 0.96]
    assert math.isclose(bottle["image_auroc"]["std"], 0.03)
    assert bottle["aupro"] == {"mean": None, "std": None, "values": [0.5, None, 0.7]}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"seed": 0}, "a and {b} both have config.seed=0"),
        ({"seed": 1, "config": {"train": {"steps": 8, "batch_size": 2}}},
         "{b} differs from {a} in config.train.steps, which is 8, not 9: only config.seed may"),
        ({"seed": 1, "config": {"more": 1}}, "in config.more, which is 1, not absent"),
        ({"seed": 1, "protocol": {"resolution": "256"}},
         "in resolution, which is 256, not image_size"),
        ({"seed": 1, "protocol": {"step of bottle": 5}}, "in step of bottle, which is 5, not 9"),
    ],
)  # fmt: skip
def test_runs_that_differ_in_more_are_refused(tmp_path, capsys, other, expected):
    a, b = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", **other)
    assert tabulate(a, b, out=tmp_path / "out") == 2
    refused(capsys, expected.format(a=a, b=b), tmp_path)


def test_runs_that_are_not_evaluated_or_only_one(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 1)
    assert tabulate(a, out=tmp_path / "out") == 2
    refused(capsys, "give two runs or more, which differ in --config.seed", tmp_path)
    metrics = json.loads((b / "results/metrics.json").read_text())
    (b / "results/metrics.json").write_text(json.dumps({"mean": metrics["mean"]}))
    assert tabulate(a, b, out=tmp_path / "out") == 2
    refused(capsys, "metrics of bottle, which is absent", tmp_path)
    for name in ("results/metrics.json", "results/details.json", "config.json"):
        (b / name).unlink()
        assert tabulate(a, b, out=tmp_path / "out") == 2
        refused(capsys, name.split("/")[-1], tmp_path)


def refused(capsys, expected, folder):
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error, error
    assert not (folder / "out").exists()
