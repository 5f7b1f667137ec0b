"""A step whose batch lies on several devices is the step of one device.

In float64: in float32 sums are taken in another order, which Adam makes a full step of where a
gradient is rounding noise.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from other_processes import flags, free_port, in_two_processes

from launch import hlo

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = pathlib.Path(__file__).with_name("steps_on_devices.py")
FLAGS = (
    # The programs are small and run twice: they are not worth optimising.
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_backend_optimization_level=0",
)
DEVICES = "--xla_force_host_platform_device_count="
TOLERANCE = 1e-9
AT_ZERO = 5e-8  # of a step of Adam, 5e-4: where a gradient is zero, rounding is all there is

LIVE = ("1-live", "8-live")
STORED = ("1-stored-accumulate2-per_device4", "4-stored-accumulate2-per_device4")
SLOW = (
    ("2-live", "1-live"),
    ("4-live", "1-live"),
    ("8-live-fsdp", "1-live"),
    ("4-live-accumulate2", "1-live-accumulate2"),
    ("4-cached", "1-cached"),
    ("2-stored", "1-stored"),
    ("8-stored", "1-stored"),
    ("8-live-per_device8", "1-live-per_device8"),
)


def take(folder, runs):
    """The arrays that runs computed, the texts of their programs and of the forward passes."""
    environment = {
        **os.environ,
        "XLA_FLAGS": " ".join((*FLAGS, f"{DEVICES}8")),
        "JAX_PLATFORMS": "cpu",
    }
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *runs],
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    arrays = {run: dict(np.load(folder / f"{run}.npz")) for run in runs}
    texts = (
        {run: (folder / f"{run}{end}").read_text() for run in runs}
        for end in (".txt", ".forward.txt")
    )
    return arrays, *texts


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return take(tmp_path_factory.mktemp("stored"), STORED)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    return take(tmp_path_factory.mktemp("live"), LIVE)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return take(tmp_path_factory.mktemp("slow"), sorted({run for pair in SLOW for run in pair}))


def assert_same(ours, theirs):
    """Losses, every parameter and every running statistic after the steps."""
    assert ours.keys() == theirs.keys() and len(ours) > 200
    for name in ours.keys() - {"teacher_bytes"}:
        error = np.linalg.norm(ours[name] - theirs[name])
        assert error < TOLERANCE * np.linalg.norm(theirs[name]) + AT_ZERO, name


@pytest.mark.slow
def test_a_step_on_devices_is_that_of_one(stored):
    assert_same(*(stored[0][run] for run in STORED))


@pytest.mark.slow
def test_a_step_with_the_teacher_on_devices_is_that_of_one(live):
    assert_same(*(live[0][run] for run in LIVE))


@pytest.mark.slow
@pytest.mark.parametrize("pair", SLOW, ids="-".join)
def test_any_step_on_devices_is_that_of_one(slow, pair):
    found = slow[0]
    assert_same(*(found[run] for run in pair))


@pytest.mark.slow
def test_statistics_of_a_share_are_others(live, stored, relative_error):
    """What these tests compare would tell a step that takes the wrong samples for its share."""
    ours, theirs = stored[0][STORED[0]]["losses"], live[0][LIVE[0]]["losses"]
    assert relative_error(ours, theirs) > 1e-3


@pytest.mark.slow
def test_sums_are_all_that_devices_send(stored):
    """No image, activation or feature goes to another device."""
    assert set(hlo.read(stored[1][STORED[1]]).collectives) == {"all-reduce"}


@pytest.mark.slow
def test_sums_are_all_that_devices_send_with_the_teacher(live):
    assert set(hlo.read(live[1][LIVE[1]]).collectives) == {"all-reduce"}
    assert set(hlo.read(live[2][LIVE[1]]).collectives) == {"all-reduce"}  # of the statistics


@pytest.mark.slow
def test_no_statistic_is_awaited_where_each_share_has_its_own(stored):
    assert hlo.read(stored[2][STORED[1]]).collectives == {}


@pytest.mark.slow
def test_two_processes_of_four_devices_take_the_step_of_one_of_eight(live, tmp_path):
    port, run = free_port(), LIVE[1]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    ended = in_two_processes(
        lambda number: [SCRIPT, folders[number], run, *flags(port, number)],
        lambda _: {"XLA_FLAGS": " ".join((*FLAGS, f"{DEVICES}4"))},
    )
    for (status, _, errors), folder in zip(ended, folders, strict=True):
        assert status == 0, errors
        assert_same(dict(np.load(folder / f"{run}.npz")), live[0][run])


@pytest.mark.slow
def test_a_teacher_in_parts_takes_a_part_of_the_memory(slow):
    arrays, texts, _ = slow
    whole, part = (int(arrays[run]["teacher_bytes"]) for run in ("4-live", "8-live-fsdp"))
    assert whole / 8 <= part < 1.1 * whole / 8
    assert "all-gather" in hlo.read(texts["8-live-fsdp"]).collectives
