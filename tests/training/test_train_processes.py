"""Training in two processes: results and folders are those of one, whatever happens to either."""

import itertools
import json
import os
import re

import jax
import numpy as np
import pytest
from miniature import write_set
from other_processes import REPOSITORY, flags, free_port, in_two_processes, simulated
from training.test_ensemble import SETTINGS, assert_same, config_file, restored, run, stand_in

from stlm_jax.main import main

TRAIN = """
import functools, os, signal, sys
import jax, pytest
from training import test_ensemble
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end
from stlm_jax.training.pack import Pack
from stlm_jax.weights.checkpoint import Checkpoints

what, *arguments = sys.argv[1:]
patch = pytest.MonkeyPatch()
test_ensemble.stand_in(patch)
second = arguments[-1] == "--process=1"
draw, write = Pack.draw, Checkpoints._write
steps = []

def disturbed(self, textures):
    steps.append(1)
    if second and len(steps) == 3 and what in ("SIGKILL", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, what))
    return draw(self, textures)

def refused(self, step, *items):
    if second and step == 4 and what == "disk":
        raise UserError(f"{self.directory}: the disk is full")
    write(self, step, *items)

patch.setattr(Pack, "draw", disturbed)
# By default the others wait 100 s for one that is gone.
initialize = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=10)
patch.setattr(jax.distributed, "initialize", initialize)
patch.setattr(Checkpoints, "_write", refused)
end(main(["main", *arguments]))
"""
ENSEMBLE = {"base": "", "low": SETTINGS["low"]}
RUNS = [f"{name}_seed{seed}" for name in ENSEMBLE for seed in (0, 1)]
SEEDS = "--config.ensemble.seeds=0,1"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_set(folder)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """What one process trained on one device."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        assert run(place, "whole", SEEDS, settings=ENSEMBLE) == 0
    return place / "whole"


def trained(place, name, *options, devices=2, disturbed="", file=None):
    """Statuses and stderr of two processes that train with so many devices each."""
    file = file or config_file(place, ENSEMBLE, f"{name}.py")
    port = free_port(20000 + sum(name.encode()))
    places = (REPOSITORY, REPOSITORY / "tests")
    environment = {
        "XLA_FLAGS": simulated(devices),
        "PYTHONPATH": os.pathsep.join(map(str, places)),
    }
    given = [f"--config={file}", f"--workdir={place / name}", *options]
    ended = in_two_processes(
        lambda number: ["-c", TRAIN, disturbed, *given, *flags(port, number)],
        lambda number: environment,
    )
    statuses, _, errors = zip(*ended, strict=True)
    return list(statuses), errors


def assert_all_same(ours, theirs, categories=("disc", "ring")):
    for name, category in itertools.product(RUNS, categories):
        assert_same(restored(ours / name, category), restored(theirs / name, category))
        files = [folder / name / category / "metrics.jsonl" for folder in (ours, theirs)]
        lines = [[json.loads(line)["loss"] for line in file.open()] for file in files]
        assert lines[0] == lines[1] and len(lines[0]) == 3


@pytest.mark.slow
def test_each_process_trains_the_groups_of_its_devices(place, whole):
    statuses, errors = trained(place, "each", SEEDS)
    assert statuses == [0, 0], errors
    assert "8 trainings at a time" in errors[0] and "trainings at a time" not in errors[1]
    assert_all_same(place / "each", whole)


@pytest.mark.slow
def test_a_process_whose_devices_have_nothing_to_do_waits(place, whole):
    statuses, errors = trained(place, "idle", SEEDS, "--config.data.categories=disc")
    assert statuses == [0, 0], errors
    assert_all_same(place / "idle", whole, ["disc"])


@pytest.mark.slow
def test_processes_share_the_batches_of_a_training(place):
    """Each reads its rows; a run alone, in whose folder the first of them writes."""
    options = ["--config.mesh.member=1", "--config.mesh.data=2", "--config.teacher.checkpoint=none"]
    tiny = place / "tiny.py"
    statuses, errors = trained(place, "share", *options, devices=1, file=tiny)
    assert statuses == [0, 0], errors
    assert main(["main", f"--config={tiny}", f"--workdir={place / 'one'}", options[-1]]) == 0
    for category in ("disc", "ring"):
        ours, theirs = (restored(place / name, category) for name in ("share", "one"))
        assert ours.step == theirs.step == 6 and ours.data == theirs.data
        for x, y in zip(
            jax.tree.leaves(ours.student), jax.tree.leaves(theirs.student), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=1e-6)  # a mean over two devices


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disturbed", "status", "said"),
    [
        ("SIGKILL", -9, None),
        ("SIGTERM", 143, r"stopped at step \d of 6, saved; run the same command again"),
        ("disk", 2, r"^error: .*: the disk is full$"),
    ],
)
def test_what_ends_one_process_ends_both_and_they_go_on(place, whole, disturbed, status, said):
    options = [SEEDS, "--config.checkpoint.every_steps=2"]
    statuses, errors = trained(place, disturbed, *options, disturbed=disturbed)
    assert statuses[1] == status and statuses[0] != 0, errors
    if said:
        assert all(re.search(said, text.strip().splitlines()[-1]) for text in errors), errors
    statuses, errors = trained(place, disturbed, *options)
    assert statuses == [0, 0] and "going on from step" in errors[0], errors
    assert_all_same(place / disturbed, whole)
