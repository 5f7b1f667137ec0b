"""Previews show what a step saw; that they change nothing of the training is in test_resume."""

import functools
import sys
import threading

import event_files
import jax
import numpy as np
import pytest
from miniature import write_config

from stlm_jax.drawing.panel import _font, draw_panel
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.metric_writer import MetricWriter
from stlm_jax.settings import parse
from stlm_jax.training import step as train_step
from stlm_jax.training.previews import Previews
from stlm_jax.training.state import create_train_state

pytest.importorskip("tensorboardX")
pytest.importorskip("matplotlib")

STEP = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("previews")
    file = write_config(folder / "tiny.py", folder / "data")
    config = parse(["main", f"--config={file}", f"--config.log.images_every_steps={STEP}"]).config
    config.pseudo.clean_probability = 0.0
    config.pseudo.perlin_threshold = 0.1
    return config


@pytest.fixture(scope="module")
def model(config):
    return build_stlm(config)


@pytest.fixture(scope="module")
def step(config, model):
    """A step's batch, the state it gave, and the images and masks that it gave to the model.

    The update itself is left out: it does not draw.
    """
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8),
        "textures": rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8),
    }
    # A ring is turned by a random angle.
    before = create_train_state(config, model, jax.random.key(1), "ring").replace(step=STEP - 1)

    def gradients(model, state, targets, pseudo, mask):
        return None, None, {"pseudo": pseudo, "mask": mask}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_step, "gradients", gradients)
        patch.setattr(train_step, "apply", lambda _, state, *__: state.replace(step=state.step + 1))
        run = jax.jit(functools.partial(train_step.train_step, model, None, None))
        after, seen = run(before, None, batch)

    def lead(tree):
        return jax.tree.map(lambda x: np.asarray(x)[None], tree)

    return lead(batch), lead(lead(after)), seen


def test_a_preview_shows_what_the_step_saw(config, model, step, tmp_path):
    batch, state, seen = step
    assert seen["mask"].any() and not np.array_equal(seen["pseudo"], batch["image"][0])
    with MetricWriter(tmp_path / "metrics.jsonl") as writer:
        Previews(config, model).write(writer, STEP, state, batch)
    _, images = event_files.read(tmp_path)
    assert list(images) == [(f"preview/{index}", STEP) for index in range(4)]
    left = slice(0, 14 + 2 * 264)  # the tiles of image and ground truth
    for index, panel in enumerate(images.values()):
        picture, mask = (np.asarray(seen[name])[index] for name in ("pseudo", "mask"))
        drawn = draw_panel(np.rint(picture).astype(np.uint8), mask, mask * 0, f"step {STEP}")
        # Another program may round an image's value to its neighbour.
        assert np.abs(panel[:, left].astype(int) - np.asarray(drawn)[:, left]).max() <= 1


def test_when_they_are_due(config, model):
    due = [step for step in range(1, 20) if Previews(config, model).due(step)]
    assert due == [6, 12, 18]
    config = config.copy_and_resolve_references()
    config.log.images_every_steps = 0
    assert not any(Previews(config, model).due(step) for step in range(1, 20))


def test_training_goes_on_without_the_library_that_draws(
    config, model, step, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _font.cache_clear()  # it ships the font
    previews = Previews(config, model)
    batch, state, _ = step
    with MetricWriter(tmp_path / "metrics.jsonl") as writer:
        previews.write(writer, STEP, state, batch)
    assert not event_files.read(tmp_path)[1]
    assert capsys.readouterr().err.count("no previews: ") == 1
    assert not previews.due(STEP)


def test_no_compilation_of_theirs_keeps_a_stopped_run_from_saving(config, model, step, tmp_path):
    woken, previews = threading.Event(), Previews(config, model)
    previews._preview = type("Endless", (), {"lower": lambda *_: woken.wait(60)})()
    batch, state, _ = step
    with MetricWriter(tmp_path / "metrics.jsonl") as writer:
        previews.write(writer, STEP, state, batch, stop=lambda: True)
        assert not woken.is_set()
    woken.set()
    assert not event_files.read(tmp_path)[1]
