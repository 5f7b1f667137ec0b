import math
import sys

import event_files
import numpy as np
import pytest
from small_results import MOST_WRONG_FIRST, category, run

from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.panel import draw_panel
from stlm_jax.report import write_events

pytest.importorskip("tensorboardX")
pytest.importorskip("matplotlib")


def test_the_metrics_rates_and_worst_panels_are_at_the_step_evaluated(tmp_path):
    (tmp_path / "brick").mkdir()
    brick = category("brick")
    result = run(brick)
    result.config.evaluate.panels = 3
    write_events(tmp_path, result)
    scalars, images = event_files.read(tmp_path / "brick")
    expected = {
        (f"evaluation/{name}", 170): value
        for name, value in (brick.metrics | brick.rates).items()
        if not math.isnan(value)
    }
    assert scalars == pytest.approx(expected)
    assert [tag for tag, _ in images] == [f"evaluation/{name}" for name in MOST_WRONG_FIRST]
    miss = next(one for one in brick.images if one.name == "crack/001")
    panel = draw_panel(miss.picture, miss.mask, miss.map, miss.name, miss.score, Scale.of(0.4))
    np.testing.assert_array_equal(images["evaluation/crack/001", 170], np.asarray(panel))


def test_a_second_evaluation_replaces_the_first_and_leaves_the_training_alone(tmp_path):
    folder = tmp_path / "brick"
    folder.mkdir()
    (folder / "events.out.tfevents.1.host").write_bytes(b"")
    for step in (170, 340):
        write_events(tmp_path, run(category("brick", step=step)))
    scalars, _ = event_files.read(folder)
    assert {step for _, step in scalars} == {340}
    assert len(list(folder.iterdir())) == 2


def test_nothing_is_written_where_nothing_was_trained_or_without_tensorboardx(
    tmp_path, monkeypatch, capsys
):
    write_events(tmp_path, run(category("brick")))
    assert not list(tmp_path.iterdir())
    (tmp_path / "brick").mkdir()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    write_events(tmp_path, run(category("brick")))
    assert not list((tmp_path / "brick").iterdir())
    assert "tensorboardX is missing" in capsys.readouterr().err
