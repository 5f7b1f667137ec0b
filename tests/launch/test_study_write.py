"""What a study writes, from folders of runs: the numbers, what is missing, what is refused."""

import csv
import dataclasses
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import study_runs
from study_runs import BASELINE, SETTINGS, STUDY

from launch.study.comparison import compare
from launch.study.trial import FAILED, MISSING, Study
from launch.study.write import write_study
from stlm_jax.report.replicates import read_replicates
from stlm_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, study_runs.trials(folder)


@pytest.fixture(scope="module")
def written(made):
    folder, trials = made
    return folder / "study", write_study(folder / "study", STUDY, trials)


def cells(text, first):
    """The cells of the Markdown's row that begins with a setting."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def values(trials, setting, metric):
    done = [t for t in trials if t.setting == setting and t.state == "done"]
    return {t.seed: study_runs.read_metrics(t.folder)["mean"][metric] for t in done}


def test_the_table_holds_means_deviations_and_paired_differences(made, written):
    _, trials = made
    folder, text = written
    assert (folder / "table.md").read_text() == text
    head = cells(text, "setting")
    assert head[:4] == ["setting", "what it changes", "image AUROC", "difference"]
    assert head[-4:] == ["seeds", "training of a run", "teacher passes", "trials"]
    full = cells(text, f"{BASELINE} (baseline)")
    assert full[1] == full[3] == "-"
    for setting, changes in SETTINGS.items():
        row = cells(text, setting)
        own, base = (values(trials, one, "pixel_ap") for one in (setting, BASELINE))
        mean, std = np.mean([*own.values()]), np.std([*own.values()], ddof=1)
        at = head.index("pixel AP")
        assert row[at] == f"{100 * mean:.2f} ± {100 * std:.2f}"
        if setting != BASELINE:
            paired = np.mean([own[seed] - base[seed] for seed in own])
            assert row[1] == changes
            assert row[at + 1].strip("*").startswith(f"{100 * paired:+.2f} [")
    assert cells(text, "level_1")[-4:] == ["3", "4.6 min", "1,231", "done"]
    assert cells(text, "plain")[-4:] == ["2", "2.2 min", "1,210", "2 of 3 done, 1 diverged"]
    for line in ("- plain, seed 2: diverged: loss is nan at step 31", "- no_fa, seed 2: missing:",
                 "- plain: its difference is without seeds that lack a pair: 2",
                 f"- {STUDY.notes[0]}"):  # fmt: skip
        assert line in text


def test_an_interval_is_made_of_the_folders_replicates(made):
    """Recomputed from the files by another formula: covariances of categories' replicates."""
    from scipy import stats

    _, trials = made
    row = next(r for r in compare(STUDY, trials).rows if r.setting == "level_1")
    of = {(t.setting, t.seed): t.folder for t in trials}
    per_seed, drawn = [], {"bottle": [], "cable": []}
    for seed in STUDY.seeds:
        ours, theirs = (of[setting, seed] for setting in ("level_1", BASELINE))
        both = [study_runs.read_metrics(folder)["mean"]["aupro"] for folder in (ours, theirs)]
        per_seed.append(both[0] - both[1])
        for category, sets in drawn.items():
            arrays = [
                read_replicates(folder / "results/replicates.npz")[category].metrics["aupro"]
                for folder in (ours, theirs)
            ]
            sets.append(arrays[0].astype(float) - arrays[1])
    images = sum(np.cov(sets).mean() for sets in drawn.values()) / 4
    seeds = stats.sem(per_seed) ** 2
    freedom = 2 * ((images + seeds) / seeds) ** 2
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(images + seeds)
    found = row.differences["aupro"]
    expected = np.mean(per_seed) - reach, np.mean(per_seed) + reach
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6)
    assert found.seeds == 3 and not found.is_noise
    cable = row.by_category["cable"]["aupro"]
    assert cable.of_images == pytest.approx(math.sqrt(np.cov(drawn["cable"]).mean()), rel=1e-6)


def test_bold_is_what_does_not_hold_zero(written):
    _, text = written
    shown = [cell for s in SETTINGS for cell in cells(text, s)[3:11:2] if cell != "-"]
    assert len(shown) == 12
    for cell in shown:
        low, high = map(float, re.search(r"\[(.*), (.*)\]", cell).groups())
        assert cell.startswith("**") == (low > 0 or high < 0)
    assert 2 < sum(cell.startswith("**") for cell in shown) < 12


def test_the_csv_has_every_metric_as_numbers(made, written):
    folder, _ = written
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    assert [row["setting"] for row in rows] == list(SETTINGS)
    own = values(made[1], "plain", "pixel_ap_without_fa")
    assert float(rows[1]["pixel AP without FA"]) == pytest.approx(
        100 * np.mean([*own.values()]), abs=0.006
    )
    assert rows[0]["AUPRO difference"] == "" and rows[0]["AUPRO p"] == ""
    assert 0 <= float(rows[1]["AUPRO p"]) < 0.05 and float(rows[1]["AUPRO high"]) < 0
    assert rows[1]["together"] == "12" and rows[1]["trials"] == "2 of 3 done, 1 diverged"


def changed(tmp_path, made, setting, change):
    """The study's trials, one setting's first run copied and changed."""
    folder, trials = made
    place = [*SETTINGS].index(setting) * 3
    copy = shutil.copytree(trials[place].folder, tmp_path / "copy")
    change(copy)
    trials = [*trials]
    trials[place] = dataclasses.replace(trials[place], folder=copy)
    return trials


def edit(name, **changes):
    def change(folder):
        path = folder / "results" / name
        content = json.loads(path.read_text())
        content["protocol"] |= changes
        path.write_text(json.dumps(content))

    return change


def other_images(**options):
    def change(folder):
        made = [study_runs.category(name, 1.6, 30, **options) for name in ("bottle", "cable")]
        study_runs.write_run(folder, made)

    return change


def other_size(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 128}))


def one_category(folder):
    study_runs.write_run(folder, [study_runs.category("bottle", 1.6, 30)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_images(first=7), "other test images of bottle than in both, seed 0"),
        (other_images(images=21), "21 test images of bottle, not 24 as in both, seed 0"),
        (other_images(drawn=50), "other test images of bottle than in both, seed 0"),
        (edit("details.json", resolution="256"), "evaluate.resolution is 256, not 64 as in both"),
        (edit("details.json", score_top_k=1), "evaluate.score_top_k is 1, not 100 as in both"),
        (other_size, "evaluate.resolution is 128, not 64 as in both, seed 0"),
        (one_category, "evaluated without cable, unlike both, seed 0"),
        (lambda f: (f / "results/replicates.npz").unlink(), "replicates.npz is missing"),
        (lambda f: (f / "results/replicates.npz").write_bytes(b"x"), "replicates.npz is damaged"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    ],
)
def test_a_run_that_was_measured_otherwise_is_not_paired(tmp_path, made, change, why):
    trials = changed(tmp_path, made, "level_1", change)
    text = write_study(tmp_path / "study", STUDY, trials)
    line = next(line for line in text.splitlines() if line.startswith("- level_1, seed 0"))
    assert line.startswith("- level_1, seed 0: not compared: ") and why in line, line
    assert "- level_1: its difference is without seeds that lack a pair: 0" in text
    found = {row.setting: row for row in compare(STUDY, trials).rows}["level_1"]
    assert found.differences["aupro"].seeds == 2
    assert len(found.seeds) == (2 if change is one_category else 3)


def test_the_steps_of_a_training_may_differ(tmp_path, made):
    """A study may be of the number of steps; `details.json` says the checkpoint's."""
    trials = changed(tmp_path, made, "level_1", edit("details.json", **{"step of bottle": 7}))
    row = {row.setting: row for row in compare(STUDY, trials).rows}["level_1"]
    assert row.differences["aupro"].seeds == 3


def test_a_study_of_which_nothing_is_done(tmp_path):
    text = write_study(tmp_path, STUDY, [])
    assert cells(text, "plain") == ["plain", "student.streams=plain", "0", "-", "-",
                                    "0 of 3 done, 3 missing"]  # fmt: skip
    assert "- both, the baseline, has no results: nothing is compared" in text
    assert text.count(": missing: not started") == 12
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_a_study_without_its_baseline_has_means_alone(tmp_path, made):
    _, trials = made
    text = write_study(tmp_path, STUDY, trials[3:])
    assert "- both, the baseline, has no results: nothing is compared" in text
    row = cells(text, "level_1")
    assert " ± " in row[2] and row[3] == "-"
    assert cells(text, f"{BASELINE} (baseline)")[2:4] == ["-", "-"]


def test_a_done_trial_without_results_is_a_failed_one(tmp_path, made):
    trials = changed(tmp_path, made, "plain", lambda f: (f / "results/metrics.json").unlink())
    found = compare(STUDY, trials)
    failed = [t for t in found.unfinished if t.state == FAILED]
    assert [(t.setting, t.seed) for t in failed] == [("plain", 0)]
    assert "metrics.json" in failed[0].why and "\n" not in failed[0].why


def test_metrics_are_those_that_all_settings_have(tmp_path, made):
    def change(folder):
        path = folder / "results/metrics.json"
        content = json.loads(path.read_text())
        for category in content.values():
            category["aupro"] = None
            del category["pixel_ap_without_fa"]
        path.write_text(json.dumps(content))

    study = dataclasses.replace(STUDY, seeds=(0,))
    found = compare(study, changed(tmp_path, made, "no_fa", change))
    assert found.shown == ["image_auroc", "pixel_auroc", "pixel_ap"]
    assert "pixel_ap_without_fa" not in found.metrics and len(found.metrics) == 6
    assert found.adjusted.keys() == {"plain", "no_fa", "level_1"}
    text = write_study(tmp_path / "study", study, made[1])
    assert "Some intervals are over test images alone, as there is one seed." in text
    assert cells(text, "level_1")[2].count("±") == 0


def test_the_baseline_is_a_setting():
    with pytest.raises(UserError, match="study x: its baseline y is not a setting of it"):
        compare(Study("x", "y", {"z": ""}, (0,)), [])


def test_without_the_report_s_libraries_the_tables_are_written(tmp_path, made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    write_study(tmp_path, STUDY, made[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.md"]
    assert "no report: the report needs jinja2" in "".join(capsys.readouterr())
    assert made[1][8].state == MISSING
