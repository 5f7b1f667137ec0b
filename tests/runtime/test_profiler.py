"""A trace of some steps, and none where none is asked for."""

import jax.numpy as jnp
import pytest

from stlm_jax.runtime.profiler import Profiler


def traced(folder):
    return sorted(path.name.split(".", 1)[1] for path in folder.rglob("*.xplane.pb"))


def test_the_steps_asked_for_are_recorded(tmp_path, capsys):
    with Profiler(tmp_path, start=2, steps=2) as profiler:
        for number in range(6):
            assert profiler.step(number, lambda x: x + 1, jnp.float32(number)) == number + 1
            assert bool(traced(tmp_path)) == (number >= 3)
    assert traced(tmp_path) == ["xplane.pb"]
    assert "a profile from step 2 on is in" in capsys.readouterr().err


def test_an_error_in_a_step_ends_the_trace(tmp_path):
    def fail():
        raise RuntimeError("in the step")

    for _ in range(2):  # a second trace could not begin while the first is open
        with pytest.raises(RuntimeError, match="in the step"), Profiler(tmp_path, 0, 5) as profiler:
            profiler.step(0, fail)
    assert traced(tmp_path)


@pytest.mark.parametrize("start", [0, 1])
def test_none_are_recorded_by_default(tmp_path, start):
    with Profiler(tmp_path, start, 0) as profiler:
        for number in range(3):
            profiler.step(number, lambda: 0)
    assert not list(tmp_path.iterdir())
