"""A run that was killed five times, or twenty, equals one that never was."""

import json
import pathlib
import subprocess
import sys

import jax
import kills
import numpy as np
import pytest

from stlm_jax.models.build import build_stlm
from stlm_jax.settings import parse
from stlm_jax.training.state import abstract_train_state
from stlm_jax.weights.checkpoint import Checkpoints

EVERY = [pytest.param(1, marks=pytest.mark.slow), 4]  # of the moments: all, or every fourth


@pytest.fixture(scope="module", params=EVERY)
def ended(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("kills")
    process = subprocess.run(
        [sys.executable, kills.__file__, str(folder), str(request.param)],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return folder, json.loads(process.stdout.splitlines()[-1]) | {"every": request.param}


def test_every_process_but_the_last_was_killed(ended):
    folder, ends = ended
    moments = kills.MOMENTS[:: ends["every"]]
    assert ends["killed"] == [-9] * len(moments) and len(kills.MOMENTS) == 20
    assert (ends["whole"], ends["last"]) == (0, 0), (folder / "log").read_text()[-2000:]
    assert "Traceback" not in (folder / "log").read_text()


def state_of(folder: pathlib.Path, workdir: str):
    config = parse(["main", f"--config={folder / 'tiny.py'}", *kills.OPTIONS]).config
    template = abstract_train_state(config, build_stlm(config))
    with Checkpoints(folder / workdir / "disc/checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(template.student(), template.training())


def test_the_state_is_that_of_a_run_that_was_never_killed(ended):
    ours, theirs = state_of(ended[0], "killed"), state_of(ended[0], "whole")
    assert (ours.step, ours.data) == (theirs.step, theirs.data) and ours.step == kills.STEPS
    jax.tree.map(np.testing.assert_array_equal, ours.student, theirs.student)
    jax.tree.map(np.testing.assert_array_equal, ours.training, theirs.training)


def test_the_files_are_those_of_a_run_that_was_never_killed(ended):
    killed, whole = ended[0] / "killed", ended[0] / "whole"
    steps = [
        [json.loads(line)["step"] for line in (run / "disc/metrics.jsonl").open()]
        for run in (killed, whole)
    ]
    assert steps[0] == steps[1] == list(range(1, kills.STEPS + 1))
    for name in ("results/metrics.json", "config.json", "disc/calibration.json"):
        assert (killed / name).read_text() == (whole / name).read_text(), name
    assert (killed / "results/report.html").is_file()
    left = [
        p for p in killed.rglob("*") if p.name.endswith(".tmp") or "orbax-checkpoint-tmp" in p.name
    ]
    assert not left and not (killed / "lock").exists()
