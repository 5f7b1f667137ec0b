"""When a training saves, what it does not save, and that saving changes nothing of it."""

import itertools
import json
import re
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from miniature import stand_in_step, write_set

from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.settings import parse
from stlm_jax.training.saving import SaveTimes
from stlm_jax.training.state import abstract_train_state
from stlm_jax.training.train import Trainer
from stlm_jax.weights.checkpoint import Checkpoints

STEPS = 10
OPTIONS = (
    f"--config.train.steps={STEPS}", "--config.checkpoint.every_steps=1000",
    "--config.checkpoint.keep=100", "--config.image_size=32", "--config.teacher.checkpoint=none",
    "--config.log.every_steps=1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saving")
    write_set(folder, ["disc"])
    return folder


@pytest.fixture(scope="module", autouse=True)
def trainer():
    """The one Trainer of all runs, of the stand-in for a step, in a list; they end unevaluated."""
    made: list[Trainer] = []

    def trainer_of(config, template):
        if not made:
            made.append(Trainer(config, template))
        made[0].config = config
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
        patch.setattr("stlm_jax.training.train.Trainer", trainer_of)
        patch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
        patch.setattr("stlm_jax.evaluation.calibrate.calibrate_untested", lambda *_: None)
        yield made


@pytest.fixture
def clock(monkeypatch):
    """25 s pass as a batch is drawn, and none otherwise."""
    from stlm_jax.data.loader import TrainLoader

    seconds, draw = [0.0], TrainLoader.__next__

    def drawn(loader):
        seconds[0] += 25
        return draw(loader)

    monkeypatch.setattr(TrainLoader, "__next__", drawn)
    monkeypatch.setattr("stlm_jax.training.saving.monotonic", lambda: seconds[0])


def command(place, workdir, *arguments):
    return [
        "main",
        f"--config={place / 'tiny.py'}",
        f"--workdir={place / workdir}",
        *OPTIONS,
        *arguments,
    ]


def steps_of(place, workdir):
    folder = place / workdir / "disc/checkpoints"
    return sorted(int(path.name) for path in folder.glob("[0-9]*"))


def last_of(place, workdir):
    config = parse(command(place, workdir)).config
    state = abstract_train_state(config, build_stlm(config))
    with Checkpoints(place / workdir / "disc/checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(state.student(), state.training())


def assert_same_numbers(ours, theirs):
    assert (ours.step, ours.data) == (theirs.step, theirs.data)
    jax.tree.map(np.testing.assert_array_equal, ours.student, theirs.student)
    jax.tree.map(np.testing.assert_array_equal, ours.training, theirs.training)


@pytest.fixture
def whole(place):
    """The end of a run that saved only then."""
    if not (place / "whole").exists():
        assert main(command(place, "whole", "--config.checkpoint.every_minutes=0")) == 0
    assert steps_of(place, "whole") == [STEPS]
    return last_of(place, "whole")


# --- when ---


@pytest.mark.parametrize(
    ("minutes", "every", "steps"),
    [
        (1, 1000, [3, 6, 9, 10]),  # 75 s after the last
        (1, 2, [2, 4, 6, 8, 10]),  # 50 s after the last
        (1.25, 5, [3, 5, 8, 10]),  # a save by steps begins the time anew
        (0, 1000, [10]),
    ],
)
def test_time_without_a_save_is_bounded(place, whole, clock, minutes, every, steps):
    options = (
        f"--config.checkpoint.every_minutes={minutes}",
        f"--config.checkpoint.every_steps={every}",
    )
    name = f"every_{minutes}_{every}"
    assert main(command(place, name, *options)) == 0
    assert steps_of(place, name) == steps
    assert_same_numbers(last_of(place, name), whole)


def test_a_run_that_was_stopped_saves_at_other_times_and_is_the_same(
    place, whole, clock, monkeypatch
):
    from stlm_jax.data.loader import TrainLoader

    drawn, draw = itertools.count(1), TrainLoader.__next__

    def draw_and_signal(loader):
        if next(drawn) == 5:
            signal.raise_signal(signal.SIGTERM)
        return draw(loader)

    minutes = "--config.checkpoint.every_minutes=1"
    with monkeypatch.context() as patch:
        patch.setattr(TrainLoader, "__next__", draw_and_signal)
        assert main(command(place, "stopped", minutes)) == 143
    assert steps_of(place, "stopped") == [3, 5]
    assert main(command(place, "stopped", minutes)) == 0
    assert steps_of(place, "stopped") == [3, 5, 8, 10]
    assert_same_numbers(last_of(place, "stopped"), whole)


def test_saving_by_time_is_the_default():
    from stlm_jax.config import default

    config = default().checkpoint
    assert config.every_minutes > 0 and not SaveTimes(config).due(1)


# --- what not ---


class Spoilt:
    """A step, but that call number `call` gives another loss or another student."""

    def __init__(self, step, call, change):
        self.lower, self._step, self._calls = step.lower, step, itertools.count(1)
        self._call, self._change = call, change

    def __call__(self, *arguments):
        state, metrics = self._step(*arguments)
        if next(self._calls) == self._call:
            state, metrics = self._change(state, metrics)
        return state, metrics


def loss_of(value):
    return lambda state, metrics: (state, metrics | {"loss": jax.device_put(np.float32(value))})


def weight_of(value):
    def change(state, metrics):
        first, *others = jax.tree.leaves(state.params)
        leaves = [first * jax.device_put(np.float32(value)), *others]
        return state.replace(
            params=jax.tree.unflatten(jax.tree.structure(state.params), leaves)
        ), metrics

    return change


@pytest.fixture
def spoil(whole, trainer, monkeypatch):
    """Has a call of the step give something else."""
    return lambda call, change: monkeypatch.setattr(
        trainer[0], "step", Spoilt(trainer[0].step, call, change)
    )


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_loss_that_nobody_read_is_not_saved(place, value, spoil, capsys):
    """It is finite in all steps but the fifth, weights always are; none of them is shown."""
    spoil(5, loss_of(value))
    name = f"loss_{value}"
    assert main(command(place, name, "--config.checkpoint.every_steps=3")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        rf"^error: disc: a loss became {value} in steps 4 to 6, the last good is step 3; try", line
    )
    assert steps_of(place, name) == [3]


def test_nor_is_it_where_the_losses_shown_are_finite(place, spoil, capsys):
    spoil(3, loss_of(float("nan")))
    options = "--config.log.every_steps=2", "--config.checkpoint.every_steps=5"
    assert main(command(place, "shown", *options)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a loss became nan in steps 3 to 4, no checkpoint was saved" in line
    assert steps_of(place, "shown") == []
    rows = (place / "shown/disc/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_not_saved(place, value, spoil, capsys):
    spoil(6, weight_of(value))
    name = f"weight_{value}"
    assert main(command(place, name, "--config.checkpoint.every_steps=3")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "disc: a weight became infinite or nan at step 6, the last good is step 3" in line
    assert steps_of(place, name) == [3]


# --- a disk that refuses ---


def test_a_disk_that_refuses_ends_the_run_before_its_next_save(place, whole, monkeypatch, capsys):
    write = ocp.CheckpointManager.save

    def refusing(manager, step, **named):
        if step == 4:
            raise OSError(28, "No space left on device")
        return write(manager, step, **named)

    options = "--config.checkpoint.every_steps=2", "--config.checkpoint.keep=1"
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", refusing)
        assert main(command(place, "full", *options)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"^error: .*disc/checkpoints: checkpoint 4 could not be written: no space left on the "
        r"disk; the one of step 2 is intact, so free some space and run the command again$",
        line,
    )
    assert steps_of(place, "full") == [2]
    assert main(command(place, "full", *options)) == 0
    assert_same_numbers(last_of(place, "full"), whole)
    shutil.rmtree(place / "full")
