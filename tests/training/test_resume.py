"""A run that was stopped, however, and gone on with equals one that never stopped, bit by bit."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import event_files
import jax
import numpy as np
import pytest
from miniature import write_config, write_set

from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.settings import parse
from stlm_jax.training.previews import Previews
from stlm_jax.training.state import abstract_train_state, category_key
from stlm_jax.training.trainer import Trainer
from stlm_jax.weights.checkpoint import Checkpoints

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_set(folder, ["disc"])
    return folder


@pytest.fixture(scope="module", autouse=True)
def trainers():
    """The one Trainer of all runs in this process, in a list; they end without the evaluation.

    Compiling the step takes most of a short run. What a new process does is in the test that
    kills one.
    """
    made: list[Trainer] = []

    def trainer_of(config, template):
        if not made:
            made.append(Trainer(config, template))
        made[0].config = config
        made[0].previews = Previews(config, made[0].model)
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stlm_jax.training.train.Trainer", trainer_of)
        patch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
        patch.setattr("stlm_jax.evaluation.calibrate.calibrate_untested", lambda *_: None)
        yield made


@pytest.fixture(scope="module")
def whole(place):
    """The state after 7 steps of a run that never stopped."""
    assert main(command(place, "whole", 7)) == 0
    return restored(place, "whole")


def command(place, workdir, steps, *arguments):
    return [
        "main",
        f"--config={place / 'tiny.py'}",
        f"--workdir={place / workdir}",
        f"--config.train.steps={steps}",
        "--config.evaluate.panels=0",
        *arguments,
    ]


def checkpoints_of(place, workdir, read_only=True):
    return Checkpoints(place / workdir / "disc" / "checkpoints", read_only=read_only)


def restored(place, workdir):
    with checkpoints_of(place, workdir) as checkpoints:
        state = template(place)
        return checkpoints.restore(state.student(), state.training())


@functools.cache
def template(place):
    config = parse(command(place, "whole", 7)).config
    return abstract_train_state(config, build_stlm(config))


def assert_bit_identical(ours, theirs):
    assert (ours.step, ours.data) == (theirs.step, theirs.data)
    expected, found = (
        dict(jax.tree_util.tree_leaves_with_path((run.student, run.training)))
        for run in (theirs, ours)
    )
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].tobytes() == leaf.tobytes(), jax.tree_util.keystr(path)


def logged_steps(place, workdir):
    lines = (place / workdir / "disc" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_steps_change_every_part_of_the_state(place, whole):
    """The comparisons below could not fail on a state that stays as it was."""
    assert int(whole.training["step"]) == 7
    moments = jax.tree.leaves(whole.training["opt_state"])
    assert sum(np.any(leaf != 0) for leaf in moments) > 0.8 * len(moments)
    means = [leaf for leaf in jax.tree.leaves(whole.student["batch_stats"]) if np.any(leaf)]
    assert len(means) > 20


def test_a_longer_run_goes_on_from_a_finished_one(place, whole):
    assert main(command(place, "longer", 3)) == 0
    assert restored(place, "longer").step == 3
    assert main(command(place, "longer", 7)) == 0
    assert_bit_identical(restored(place, "longer"), whole)
    assert logged_steps(place, "longer") == [2, 3, 4, 6, 7]


def test_rates_that_fall_do_so_over_the_length_asked_for(place, capsys):
    falling = "--config.optimizer.decay=cosine"
    assert main(command(place, "falling", 3, falling)) == 0
    assert int(restored(place, "falling").training["hyper"]["optimizer"]["decay_steps"]) == 3
    capsys.readouterr()
    assert main(command(place, "falling", 7, falling)) == 2
    assert "trained with config.train.steps=3, now it is 7" in capsys.readouterr().err
    assert restored(place, "falling").step == 3


def test_a_category_may_have_a_length_of_its_own(place):
    file = place / "shorter.py"
    text = (place / "tiny.py").read_text()
    file.write_text(text.replace("    return c\n", "    c.train.steps_of.disc = 2\n    return c\n"))
    options = [f"--config={file}", "--config.optimizer.decay=cosine"]
    program, _, *rest = command(place, "shorter", 7)
    assert main([program, *options, *rest]) == 0
    made = restored(place, "shorter")
    assert (made.step, int(made.training["hyper"]["optimizer"]["decay_steps"])) == (2, 2)


@pytest.mark.slow
def test_a_run_with_previews_is_the_same(place, whole):
    pytest.importorskip("tensorboardX")
    assert main(command(place, "previews", 7, "--config.log.images_every_steps=3")) == 0
    assert_bit_identical(restored(place, "previews"), whole)
    _, images = event_files.read(place / "previews" / "disc")
    assert sorted({step for _, step in images}) == [3, 6]


def teacher_passes(place, workdir):
    lines = (place / workdir / "disc" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["teacher_passes"] for line in lines]


def test_a_run_whose_clean_features_do_not_fit_is_the_same(place, whole, capsys):
    """One image's are two levels of 4 × 4 × 32 numbers of two bytes."""
    for kept in (0, 2):
        budget = f"--config.teacher.cache_gib={(kept + 0.5) * 2048 / 2**30:.12f}"
        assert main(command(place, f"kept_{kept}", 7, budget)) == 0
        assert f"clean features of {kept} of 5 images" in capsys.readouterr().err
        assert_bit_identical(restored(place, f"kept_{kept}"), whole)
    none, some, all_ = (teacher_passes(place, name) for name in ("kept_0", "kept_2", "whole"))
    assert min(none) >= 1
    # In seven steps five images are seen twice or three times.
    assert sum(all_) < sum(some) < sum(none) and all_[-1] <= none[-1] - 1


@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_the_current_step_and_says_how_to_go_on(
    place, whole, name, status, monkeypatch, capsys
):
    from stlm_jax.data.loader import TrainLoader

    draw, drawn = TrainLoader.__next__, []

    def draw_and_signal(loader):
        drawn.append(1)
        if len(drawn) == 5:
            signal.raise_signal(getattr(signal, name))
        return draw(loader)

    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(TrainLoader, "__next__", draw_and_signal)
        assert main(command(place, name, 7)) == status
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"disc: stopped at step 5 of 7, saved; run the same command", last_line)
    assert restored(place, name).step == 5  # not a multiple of checkpoint.every_steps
    assert main(command(place, name, 7)) == 0
    assert_bit_identical(restored(place, name), whole)
    assert logged_steps(place, name) == logged_steps(place, "whole")


def test_a_killed_process_goes_on_from_its_last_checkpoint(place, whole):
    """SIGKILL at whatever moment follows the second checkpoint of an endless run."""
    options = ["--config.checkpoint.every_steps=2", "--config.checkpoint.keep=1000"]
    folder = place / "killed" / "disc" / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, "-m", "stlm_jax.main", *command(place, "killed", 10**6, *options)[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
    )
    deadline = time.monotonic() + 300
    while not (folder / "4").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
    for later in folder.iterdir():  # so that the run below ends where the whole one does
        if later.name.isdigit() and int(later.name) > 4:
            shutil.rmtree(later)
    assert main(command(place, "killed", 7, *options)) == 0
    assert_bit_identical(restored(place, "killed"), whole)
    assert logged_steps(place, "killed") == logged_steps(place, "whole")


def test_a_damaged_last_checkpoint_is_trained_again(place, whole, capsys):
    shutil.copytree(place / "whole", place / "damaged")
    shutil.rmtree(place / "damaged" / "disc" / "checkpoints" / "7" / "training")
    assert main(command(place, "damaged", 7)) == 0
    printed = capsys.readouterr().err
    assert "checkpoints/7: damaged, ignored" in printed and "going on from step 4" in printed
    assert_bit_identical(restored(place, "damaged"), whole)


def test_a_loss_that_is_not_finite_stops_without_being_saved(place, capsys):
    options = ["--config.optimizer.learning_rate=1e30", "--config.checkpoint.every_steps=1"]
    assert main(command(place, "diverged", 7, *options)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"^error: disc: .* at step \d, .*lower config\.optimizer\.learning_rate \(now 1e\+30\)",
        line,
    )
    with checkpoints_of(place, "diverged") as checkpoints:
        assert not checkpoints.steps() or max(checkpoints.steps()) < 3
    last = restored(place, "diverged")
    assert last is None or all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.student))


def test_divergence_after_a_good_checkpoint_leaves_it_loadable(place, whole, capsys):
    """The learning rates live in the state; here they become absurd in the checkpoint of step 4."""
    assert main(command(place, "poisoned", 4)) == 0
    good = restored(place, "poisoned")
    absurd = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 1e36 if "learning_rate" in str(path) else leaf, good.training
    )
    shutil.rmtree(place / "poisoned" / "disc" / "checkpoints")
    with checkpoints_of(place, "poisoned", read_only=False) as checkpoints:
        checkpoints.save(4, good.student, absurd, good.data)
    assert main(command(place, "poisoned", 20)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"error: disc: .* at step \d+, the last good is step 4; try", line)
    last = restored(place, "poisoned")
    assert last.step == 4
    for ours, theirs in zip(
        jax.tree.leaves(last.student), jax.tree.leaves(good.student), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_the_step_is_compiled_once_for_all_categories_and_resumptions(place, whole, trainers):
    write_config(place / "two.py", place / "data")
    arguments = command(place, "two", 3)
    assert main([arguments[0], f"--config={place / 'two.py'}", *arguments[2:]]) == 0
    assert restored(place, "two").step == 3
    assert (place / "two" / "ring" / "checkpoints" / "3").is_dir()
    assert trainers[0].step._cache_size() == 1


def test_a_category_does_not_depend_on_the_others(place, whole):
    assert main(command(place, "two", 7)) == 0  # disc alone goes on, begun beside ring
    assert_bit_identical(restored(place, "two"), whole)
    keys = [jax.random.key_data(category_key(0, name)) for name in ("disc", "ring")]
    assert not np.array_equal(*keys)
