"""Ensembles: results and folders of members are those of their runs alone."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import stand_in_step, write_set
from other_processes import simulated

from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.settings import parse
from stlm_jax.training.ensemble_step import placed
from stlm_jax.training.state import abstract_train_state
from stlm_jax.weights.checkpoint import Checkpoints

ENSEMBLE = """
import runpy


def get_config():
    c = runpy.run_path({tiny!r})["get_config"]()
    c.teacher.checkpoint = "none"
    c.ensemble.settings = {settings!r}
    return c
"""
SETTINGS = {
    "base": "",
    "low": "optimizer.learning_rate=1e-4 loss.focal_gamma=2 pseudo.beta_max=0.1",
}


# --- the step ---


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    """How far ten steps of an ensemble are from those of its members alone, in float64, by kind."""
    return functools.cache(lambda kind: _distances(tmp_path_factory.mktemp("steps"), kind))


def _distances(folder, kind):
    script = pathlib.Path(__file__).with_name("ensemble_steps.py")
    subprocess.run([sys.executable, str(script), str(folder / "out"), kind], check=True)
    return json.loads((folder / "out").read_text())[kind]


KINDS = [
    pytest.param("map", marks=pytest.mark.slow),
    pytest.param("vmap", marks=pytest.mark.slow),
    # Two groups on two devices each, which share a batch.
    pytest.param("map:2x2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", KINDS)
def test_members_make_the_steps_of_their_runs_alone(distances, kind):
    found = distances(kind)
    assert found["loss"] <= 1e-9 and found["student"] <= 1e-6
    # Of two groups of two members, each of which pays half of its group's passes.
    assert 1.0 <= found["passes"] <= 4.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_stopped_changes_neither_itself_nor_others(distances, kind):
    found = distances(kind)
    assert found["others_moved"] == 0.0
    assert found["stopped_step"] == 3 and found["stopped_loss"] == "nan"


# --- the command ---


def stand_in_ensemble(
    model, teacher, optimizer, states, active, variables, batch, *, mesh=None, **_
):
    """`stand_in_step` of every active member; one whose learning rate is 9 diverges in step 3."""

    def member(state, is_active, batch):
        new, metrics = stand_in_step(None, None, None, state, None, batch)
        rate = state.opt_state.inner_states["adam"].inner_state.hyperparams["learning_rate"]
        bad = (rate == 9) & (new.step == 3)
        metrics["loss"] = jnp.where(bad, jnp.nan, metrics["loss"])
        return jax.tree.map(lambda x, y: jnp.where(is_active, x, y), new, state), metrics

    def group(states, active, batch):
        return jax.vmap(member, (0, 0, None))(states, active, batch)

    results = jax.vmap(group)(states, active, batch)
    return results if mesh is None else placed(mesh, *results)


def stand_in(patch):
    patch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    patch.setattr("stlm_jax.training.trainer.ensemble_step", stand_in_ensemble)
    patch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
    patch.setattr("stlm_jax.evaluation.calibrate.calibrate_untested", lambda *_: None)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    write_set(folder)
    return folder


def config_file(place, settings, name="several.py"):
    (place / name).write_text(ENSEMBLE.format(tiny=str(place / "tiny.py"), settings=settings))
    return place / name


def run(place, workdir, *options, settings=SETTINGS):
    file = config_file(place, settings, f"{workdir}.py")
    return main(["main", f"--config={file}", f"--workdir={place / workdir}", *options])


def restored(folder, category="disc"):
    settings = parse(["main", f"--workdir={folder}"])
    template = abstract_train_state(settings.config, build_stlm(settings.config))
    with Checkpoints(folder / category / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(template.student(), template.training())


def assert_same(ours, theirs):
    assert ours.step == theirs.step and ours.data == theirs.data
    for x, y in zip(
        jax.tree.leaves((ours.student, ours.training)),
        jax.tree.leaves((theirs.student, theirs.training)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def whole(place):
    """Two settings, two seeds and two categories that were trained without a stop."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        assert run(place, "whole", "--config.ensemble.seeds=0,1") == 0
    return place / "whole"


def test_a_member_has_the_folder_and_the_checkpoint_of_its_run_alone(place, whole):
    names = {f"{name}_seed{seed}" for name in SETTINGS for seed in (0, 1)}
    assert names <= {path.name for path in whole.iterdir()}
    alone = place / "alone"
    options = ["--config.optimizer.learning_rate=1e-4", "--config.loss.focal_gamma=2",
               "--config.pseudo.beta_max=0.1", "--config.seed=1",
               "--config.teacher.checkpoint=none"]  # fmt: skip
    assert main(["main", f"--config={place / 'tiny.py'}", f"--workdir={alone}", *options]) == 0
    for category in ("disc", "ring"):
        assert_same(restored(whole / "low_seed1", category), restored(alone, category))
        lines = [
            [json.loads(line)["loss"] for line in (folder / category / "metrics.jsonl").open()]
            for folder in (whole / "low_seed1", alone)
        ]
        assert lines[0] == lines[1] and len(lines[0]) == 3


def test_the_same_command_goes_on_with_what_is_missing(place, whole, monkeypatch, capsys):
    """As after a kill in the middle of a save: some members have the newer checkpoint."""
    from stlm_jax.training.pack import save

    count = []

    def killed(checkpoints, step, state, loader):
        count.append(step)
        if len(count) == 6:  # of four members: some have saved step 4
            raise KeyboardInterrupt
        save(checkpoints, step, state, loader)

    monkeypatch.setattr("stlm_jax.training.pack.save", killed)
    options = ["--config.ensemble.seeds=0", "--config.ensemble.groups=4",
               "--config.checkpoint.every_steps=2"]  # fmt: skip
    assert run(place, "killed", *options) == 130
    monkeypatch.setattr("stlm_jax.training.pack.save", save)
    assert run(place, "killed", *options) == 0
    for name in ("base_seed0", "low_seed0"):
        for category in ("disc", "ring"):
            assert_same(
                restored(place / "killed" / name, category), restored(whole / name, category)
            )
    capsys.readouterr()
    assert run(place, "killed", *options) == 0
    assert capsys.readouterr().err.count("finished before, 6 steps") == 4


ON_DEVICES = """
import sys
import pytest, test_ensemble
from stlm_jax.main import main
test_ensemble.stand_in(pytest.MonkeyPatch())
sys.exit(main(["main", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_devices_take_a_group_each(place, whole):
    """Two categories of two seeds on four devices, in one program; a fifth place would be idle."""
    folder = pathlib.Path(__file__).parent
    environment = {
        **os.environ,
        "XLA_FLAGS": simulated(4),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(map(str, (folder.parents[1], folder.parent, folder))),
    }
    file = config_file(place, {"base": "", "low": SETTINGS["low"]}, "devices.py")
    options = [f"--config={file}", f"--workdir={place / 'devices'}", "--config.ensemble.seeds=0,1"]
    ended = subprocess.run(
        [sys.executable, "-c", ON_DEVICES, *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "8 trainings at a time" in ended.stderr
    for name in ("base_seed0", "low_seed1"):
        for category in ("disc", "ring"):
            assert_same(
                restored(place / "devices" / name, category), restored(whole / name, category)
            )


@pytest.mark.slow
def test_a_pack_that_is_not_full_is_trained_by_the_same_program(place, whole):
    """Three seeds by two at a time: the second pack has an idle place."""
    options = ["--config.ensemble.seeds=1,2,0", "--config.ensemble.groups=2",
               "--config.data.categories=disc"]  # fmt: skip
    assert run(place, "uneven", *options, settings={"base": ""}) == 0
    for name in ("base_seed0", "base_seed1"):
        assert_same(restored(place / "uneven" / name), restored(whole / name))


def test_members_of_different_lengths_end_apart(place, whole):
    options = ["--config.ensemble.groups=4", "--config.train.steps_of.ring=3"]
    file = config_file(place, {"base": ""}, "apart.py")
    file.write_text(file.read_text().replace("return c", "c.train.steps_of.ring = 3\n    return c"))
    command = ["main", f"--config={file}", f"--workdir={place / 'apart'}", *options[:1]]
    assert main(command) == 0
    assert restored(place / "apart/base", "ring").step == 3
    assert_same(restored(place / "apart/base"), restored(whole / "base_seed0"))


def test_a_member_that_diverges_is_named_and_the_others_go_on(place, whole, capsys):
    settings = {"base": "", "wild": "optimizer.learning_rate=9"}
    options = ["--config.log.every_steps=1", "--config.data.categories=disc",
               "--config.checkpoint.every_steps=2"]  # fmt: skip
    assert run(place, "wild", *options, settings=settings) == 2
    said = capsys.readouterr().err
    assert re.search(r"^disc of wild: the loss became nan at step 3, .*good is step 2", said, re.M)
    assert "that diverged and were stopped: disc of wild; the others" in said.splitlines()[-1]
    assert restored(place / "wild/wild").step == 2
    assert_same(restored(place / "wild/base"), restored(whole / "base_seed0"))
    assert run(place, "wild", *options, settings=settings) == 2
    assert "disc of wild: diverged before" in capsys.readouterr().err


@pytest.mark.slow
def test_a_member_goes_on_alone_and_then_the_others(place, whole):
    options = ["--config.ensemble.seeds=0,1", "--config.data.categories=disc"]
    settings = {name: SETTINGS[name] for name in ("base", "low")}
    assert run(place, "part", *options, "--config.train.steps=4", settings=settings) == 0
    alone = place / "part/low_seed1"
    assert main(["main", f"--workdir={alone}", "--config.train.steps=6"]) == 0
    assert_same(restored(alone), restored(whole / "low_seed1"))
    assert restored(place / "part/base_seed1").step == 4
    assert run(place, "part", *options, settings=settings) == 0
    for name in ("base_seed0", "base_seed1", "low_seed0", "low_seed1"):
        assert_same(restored(place / "part" / name), restored(whole / name))
