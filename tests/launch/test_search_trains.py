"""The search with the process that trains: what diverges, what is killed, the table at the end."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from miniature import write_set
from other_processes import REPOSITORY

from stlm_jax.runtime.files import write_json

HERE = pathlib.Path(__file__).parent
SPACE = """
def suggest(trial):
    rate = trial.suggest_float("optimizer.learning_rate", 1e-5, 1e-3, log=True)
    return {"optimizer.learning_rate": rate}
"""
WILD = SPACE.replace("rate}", "9 if trial.number == 1 else rate}")
QUICK = f"""
import sys
from launch.search import main
from launch.tuning import batches, ending
batches.WORKER = (sys.executable, {str(HERE / "search_quick_worker.py")!r})
ending.EVALUATE = (sys.executable, {str(HERE / "search_evaluation.py")!r})
sys.exit(main())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search_trains")
    write_set(folder, ["disc"])
    (folder / "space.py").write_text(SPACE)
    (folder / "wild.py").write_text(WILD)
    return folder


def started(place, name, *options, program=("-m", "launch.search"), space="space.py", said=None):
    rooms = (REPOSITORY, REPOSITORY / "tests", REPOSITORY / "tests/training")
    return subprocess.Popen(
        [sys.executable, *program, f"--space={place / space}", f"--base={place / 'tiny.py'}",
         "--batch=2", f"--workdir={place / name}", "--config.calibration.held_out=0.4", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, rooms))},
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=said or subprocess.PIPE,
        text=True,
    )  # fmt: skip


def run(*arguments, **named):
    process = started(*arguments, **named)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def trials(folder):
    with open(folder / "search/trials.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_what_diverges_is_pruned_and_no_test_image_is_measured(place):
    options = ("--trials=2", "--config.teacher.checkpoint=none", "--config.log.every_steps=1",
               "--config.train.steps=4")  # fmt: skip
    out, err = run(place, "wild", *options, program=("-c", QUICK), space="wild.py")
    folder = place / "wild"
    assert [row["state"] for row in trials(folder)] == ["COMPLETE", "PRUNED"]
    reasons = [row["diverged"] for row in trials(folder)]
    assert not reasons[0] and reasons[1].startswith("disc: the loss became nan at step 3")
    result = json.loads((folder / "batches/0000/trial_0000/pseudo_validation.json").read_text())
    assert result["categories"]["disc"]["step"] == 4
    assert result["metrics"]["aupro"] == float(trials(folder)[0]["aupro"])
    assert "default, which is the chosen" in out
    assert (folder / "evaluated").read_text().split() == ["trial_0000"]
    assert not list(folder.rglob("calibration.json"))  # which evaluation writes


def test_what_diverges_alone_is_pruned_too(place, monkeypatch):
    """Training then ends with an error, which an ensemble's does not."""
    from search_quick_worker import diverging

    from launch.tuning import folders, worker
    from launch.tuning.batches import BATCH, result_of
    from stlm_jax.settings import load_config

    monkeypatch.setattr("stlm_jax.training.trainer.train_step", diverging)
    config = load_config(place / "tiny.py")
    config.teacher.checkpoint, config.log.every_steps = "none", 1
    config.calibration.held_out, config.train.steps = 0.4, 4
    write_json(place / "alone" / folders.SEARCH, {"config": json.loads(config.to_json())})
    folder = place / "alone/batches/0005"
    settings = {"trial_0005": {"optimizer.learning_rate": "9"}}
    write_json(folder / BATCH, {"trials": {"trial_0005": 5}, "settings": settings})
    worker._run(folder)
    assert result_of(folder / "trial_0005") == {"diverged": "disc: the loss became nan at step 3"}


@pytest.mark.slow
def test_a_search_that_is_killed_while_it_trains_finds_what_it_would_have(place):
    options = ("--config.train.steps=12", "--config.checkpoint.every_steps=1")
    _, err = run(place, "whole", "--trials=4", *options)
    folder = place / "whole"
    assert "4 are left, in 2 batches of up to 2: 48 steps" in err
    evaluated = {p.parents[1].name for p in folder.glob("batches/*/*/results/metrics.json")}
    rows = json.loads((folder / "search/table.json").read_text())["rows"].values()
    assert evaluated == {pathlib.Path(row["workdir"]).name for row in rows}
    assert all(np.isfinite(row["test"]["image_auroc"]) for row in rows)

    with open(place / "said", "w") as said:  # no pipe: the worker would be left with its end
        process = started(place, "killed", "--trials=2", *options, said=said)
    checkpoints = place / "killed/batches/0000/trial_0000/disc/checkpoints"
    while not (checkpoints / "2").exists():
        assert process.poll() is None, (place / "said").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, err = run(
        place, "killed", "--trials=2", *options
    )  # waits for the worker, which has saved and ended
    assert "going on from step" in err
    ours, theirs = ([r["aupro"] for r in trials(place / name)] for name in ("killed", "whole"))
    assert ours == theirs[:2] and all(theirs)
