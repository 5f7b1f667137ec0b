"""Saves are written in the background: what they hold, how they fail, and on which devices."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from other_processes import simulated

from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.checkpoint import Checkpoints

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")
REFUSED = "checkpoint 2 could not be written: no space left .* step 1 is intact"


def save(checkpoints, step, value=None):
    value = step if value is None else value
    student = {"params": {"w": np.full((64, 8), value, np.float32)}, "batch_stats": {}}
    checkpoints.save(step, student, {"n": np.int32(value)}, {"next": value})


def value_of(folder):
    """What the newest checkpoint holds, if its parts agree."""
    template = {"params": {"w": np.empty((64, 8), np.float32)}, "batch_stats": {}}
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore(template, {"n": np.int32(0)})
    (value,) = np.unique(restored.student["params"]["w"])
    assert value == restored.training["n"] == restored.data["next"]
    return int(value)


@pytest.fixture
def gate(monkeypatch):
    """Nothing is written before it is set."""
    opened, write = threading.Event(), ocp.CheckpointManager.save

    def waiting(manager, *arguments, **named):
        assert opened.wait(60)
        return write(manager, *arguments, **named)

    monkeypatch.setattr(ocp.CheckpointManager, "save", waiting)
    yield opened
    opened.set()


@pytest.fixture
def full_from_step_2(monkeypatch):
    write = ocp.CheckpointManager.save

    def refusing(manager, step, **named):
        if step >= 2:
            raise FULL
        return write(manager, step, **named)

    monkeypatch.setattr(ocp.CheckpointManager, "save", refusing)


# --- what is written ---


def test_a_save_returns_before_anything_is_written(tmp_path, gate):
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)
        checkpoints.check()  # nor does this wait
        assert not (tmp_path / "c/1").exists()
        gate.set()
        checkpoints.wait()
        assert (tmp_path / "c/1").is_dir() and checkpoints.steps() == [1]


def test_what_is_written_is_the_state_of_the_save(tmp_path, gate):
    """Whatever is done to its arrays since, of the host or, donated, of the device."""
    changed = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    on_host, data = np.arange(4096, dtype=np.float32), {"next": [1]}
    on_device = jnp.arange(1 << 16, dtype=jnp.float32) * 3
    before = {"h": on_host.copy(), "d": np.arange(1 << 16, dtype=np.float32) * 3}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, {"h": on_host, "d": on_device}, {"n": np.int32(1)}, data)
        on_host += 1
        data["next"].append(2)
        for _ in range(3):
            on_device = jax.block_until_ready(changed(on_device))
        gate.set()
        restored = checkpoints.restore(before)
    assert restored.data == {"next": [1]}
    for name, array in before.items():
        np.testing.assert_array_equal(restored.student[name], array)


def test_leaving_waits_for_the_writing(tmp_path, gate):
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)
        threading.Timer(0.1, gate.set).start()
    assert value_of(tmp_path / "c") == 1


def test_several_save_side_by_side_and_each_is_restored_alone(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    opened = [Checkpoints(folder, keep=2) for folder in folders]
    for step in (1, 2, 3):
        for number, checkpoints in enumerate(opened):
            save(checkpoints, step, 10 * number + step)
    for checkpoints in opened:
        checkpoints.close()
    assert [sorted(p.name for p in folder.glob("[0-9]*")) for folder in folders] == [["2", "3"]] * 3
    shutil.rmtree(folders[0])
    shutil.rmtree(folders[2])
    assert value_of(folders[1]) == 13


# --- what keeps one from the disk ---


def by_the_next_save(checkpoints):
    save(checkpoints, 3)


def by_a_look(checkpoints):
    checkpoints.steps()  # has waited
    checkpoints.check()


@pytest.mark.parametrize("told", [by_the_next_save, by_a_look, Checkpoints.wait, Checkpoints.close])
def test_an_error_of_a_save_is_told_once(tmp_path, full_from_step_2, told, capfd):
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    save(checkpoints, 1)
    save(checkpoints, 2)
    with pytest.raises(UserError, match=REFUSED) as error:
        told(checkpoints)
    assert "\n" not in str(error.value)
    checkpoints.close()
    assert capfd.readouterr().err == "" and value_of(tmp_path / "c") == 1


def test_an_error_that_nobody_asked_for_is_raised_on_leaving(tmp_path, full_from_step_2):
    with pytest.raises(UserError, match=REFUSED):
        with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
            save(checkpoints, 1)
            save(checkpoints, 2)


def test_beside_what_ends_a_run_it_is_a_line_before(tmp_path, full_from_step_2, capfd):
    with pytest.raises(KeyError, match="why the run ends"):
        with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
            save(checkpoints, 1)
            save(checkpoints, 2)
            raise KeyError("why the run ends")
    assert "checkpoint 2 could not be written" in capfd.readouterr().err


def test_one_that_fails_leaves_those_beside_it_alone(tmp_path, full_from_step_2):
    good, bad = Checkpoints(tmp_path / "good"), Checkpoints(tmp_path / "bad")
    save(bad, 2)
    save(good, 1)
    with pytest.raises(UserError, match="there is no earlier one"):
        bad.wait()
    good.close()
    bad.close()
    assert value_of(tmp_path / "good") == 1


def test_an_error_of_another_kind_is_raised_as_it_is_and_prints_nothing(tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_text("a file in the folder's place")
    save(checkpoints, 1)
    with pytest.raises(OSError):
        checkpoints.wait()
    assert capfd.readouterr().err == ""


# --- devices ---

OVER_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from stlm_jax.weights.checkpoint import Checkpoints

count = int(sys.argv[2])
assert jax.device_count() == count
mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
SPECS = {"rows": P("data"), "columns": P(None, "data"), "half": P("data"), "all": P(), "one": P()}
on_mesh = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
draw = np.random.default_rng(7)
values = {
    "rows": draw.standard_normal((16, 8), np.float32),
    "columns": draw.integers(0, 2**32, (3, 8), np.uint32),
    "half": draw.standard_normal((8, 3), np.float32).astype(jnp.bfloat16),
    "all": draw.standard_normal((5,), np.float32),
    "one": np.int32(7),
}
with Checkpoints(sys.argv[1]) as checkpoints:
    if sys.argv[3] == "save":
        arrays = {name: jax.device_put(values[name], on_mesh[name]) for name in values}
        checkpoints.save(7, {"params": arrays}, {"again": arrays}, {"next": 1})
        jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)(arrays)
    else:
        restored = checkpoints.restore({"params": values}, {"again": values})
        assert (restored.step, restored.data) == (7, {"next": 1})
        for found in (restored.student["params"], restored.training["again"]):
            arrays = {name: jax.device_put(found[name], on_mesh[name]) for name in values}
            for name, array in arrays.items():
                assert len(array.sharding.device_set) == count
                assert array.dtype == values[name].dtype, name
                assert np.asarray(array).tobytes() == values[name].tobytes(), name
        print("the same on", count)
"""


def over_devices(folder, count, what):
    flags = {"XLA_FLAGS": simulated(count)}
    process = subprocess.run(
        [sys.executable, "-c", OVER_DEVICES, str(folder), str(count), what],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **flags},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_what_eight_devices_saved_is_restored_on_one_and_on_two(tmp_path):
    over_devices(tmp_path / "c", 8, "save")
    table = json.loads(next((tmp_path / "c/7/meta").rglob("metadata")).read_text())["leaves"]
    assert table["student"]["params/rows"][:2] == [[16, 8], "float32"]
    for count in (1, 2):
        assert f"the same on {count}" in over_devices(tmp_path / "c", count, "restore")
