"""The command line of the plan, with real compilers."""

import importlib.util
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from miniature import write_set

from launch.plan import main

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: python -m pip install -e '.[tpu]'",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return f"--config={write_set(tmp_path_factory.mktemp('plan'))}"


def run(capfd, *arguments):
    """The exit status, and the lines of output and of errors."""
    status = main(["plan", *map(str, arguments)])
    printed = capfd.readouterr()
    return status, printed.out.splitlines(), printed.err.strip().splitlines()


def row(lines, name):
    """The cells of the table's line of this name."""
    (line,) = [line for line in lines if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# --- what is wrong is said in one line, without a compiler ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--topology=v5e:4x4"], "--config is missing"),
        (["--config=nowhere/none.py", "--topology=cpu"], "nowhere/none.py: no such file"),
        (["CONFIG"], "--topology is missing: give one such as v5e:4x4"),
        (["CONFIG", "--topology=v9:4x4"], "--topology=v9:4x4: is not known.*v5e:4x4"),
        (["CONFIG", "--topology=v5p:4x4"], "slices of v5p have 3 sides"),
        (["CONFIG", "--topology=cpu", "--price=free"], "--price=free: must be a number"),
        (["CONFIG", "--topology=cpu", "--data=0"], "--data=0: must be a whole number of 1"),
        (["CONFIG", "--topology=v5e:4x4", "--data=3"], "--data=3: must divide the 16 devices"),
        (["CONFIG", "--topology=cpu", "--programs=train,x"], "'x' is none of train, train_from"),
        (["CONFIG", "--topology=cpu", "--prize=1"], "unknown argument '--prize=1'"),
        (["CONFIG", "--topology=cpu", "--config.dtipe=x"], r"no key 'dtipe'.*config\.dtype"),
    ],
)
def test_wrong_arguments(config, capfd, arguments, expected):
    arguments = [config if part == "CONFIG" else part for part in arguments]
    status, _, errors = run(capfd, *arguments)
    assert status == 2 and len(errors) == 1
    assert errors[0].startswith("error: ") and re.search(expected, errors[0]), errors


def test_help_names_every_option(capfd):
    status, lines, _ = run(capfd, "--help")
    assert status == 0 and "usage: python -m launch.plan" in lines[0]


def test_without_libtpu_one_line_says_how_to_get_it(config, capfd, monkeypatch):
    monkeypatch.setattr("launch.compiling.importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    status, _, errors = run(capfd, config, "--topology=v5e:4x4")
    assert status == 2 and len(errors) == 1 and "pip install -e '.[tpu]'" in errors[0]


# --- the CPU's compiler ---


@pytest.mark.slow
def test_the_miniature_on_this_machine(config, capfd):
    """All four programs; the numbers of steps are those that training takes."""
    status, lines, errors = run(capfd, config, "--topology=cpu", "--config.evaluate.batch_size=1")
    assert status == 0, errors
    assert row(lines, "on each device") == ["train", "train from store", "teacher store",
                                            "evaluation"]  # fmt: skip
    assert row(lines, "images a call") == ["2", "2", "1", "1"]
    # 6 steps of two categories; of 5 images each, 5 · 8; 5 test images each.
    assert row(lines, "calls in all") == ["12", "12", "80", "10"]
    parts = [row(lines, f"{part}, GiB")[0] for part in
             ("parameters", "optimiser", "teacher", "inputs", "temporaries",
              "code, results, padding")]  # fmt: skip
    assert float(row(lines, "peak memory, GiB")[0]) == pytest.approx(
        sum(map(float, parts)), rel=0.02
    )
    # Adam keeps two numbers of a parameter, and SGD one.
    parameters, optimiser = map(float, parts[:2])
    assert parameters < optimiser < 2 * parameters
    assert float(row(lines, "teacher, GiB")[2]) > 0 == float(row(lines, "teacher, GiB")[1])
    assert row(lines, "collectives") == ["none"] * 4
    assert lines[-1] == "fits as it is"
    assert any(line.startswith("train: compiled in ") for line in errors)


def test_too_little_memory_is_said_with_status_1(config, capfd):
    status, lines, errors = run(
        capfd, config, "--topology=cpu", "--memory_gib=0.001", "--programs=evaluation",
        "--config.dtype=bfloat16", "--config.evaluate.batch_size=2",
    )  # fmt: skip
    assert status == 1 and "evaluation does not fit, trying" in "".join(errors)
    assert re.fullmatch(
        r"does not fit: evaluation takes 0\.\d+ GiB of 0\.001, even with "
        r"--config\.evaluate\.batch_size=1; lower config\.image_size .*",
        lines[-1],
    ), lines[-1]


@pytest.mark.slow
def test_an_evaluation_that_does_not_fit_is_told_what_to_change(config, capfd):
    """Its memory grows with its batch: what two images take is too much, what one takes is not."""
    options = ["--topology=cpu", "--programs=evaluation", "--config.dtype=bfloat16"]
    peaks = {}
    for batch in (2, 1):
        status, lines, _ = run(capfd, config, *options, f"--config.evaluate.batch_size={batch}")
        assert status == 0 and lines[-1] == "fits as it is"
        peaks[batch] = float(row(lines, "peak memory, GiB")[0])
    between = (peaks[1] + peaks[2]) / 2
    assert peaks[1] < between < peaks[2]
    options += ["--config.evaluate.batch_size=2", f"--memory_gib={between}"]
    status, lines, errors = run(capfd, config, *options)
    assert status == 0
    assert lines[-1] == "does not fit as it is; it fits with: --config.evaluate.batch_size=1"
    assert errors[1] == "evaluation does not fit, trying --config.evaluate.batch_size=1"
    assert float(row(lines, "peak memory, GiB")[0]) == pytest.approx(peaks[1])


def test_what_takes_too_long_is_named(config, capfd):
    status, lines, _ = run(capfd, config, "--topology=cpu", "--max_minutes=0.04")
    assert status == 1
    assert (
        lines[-1] == "not proven to fit: train was not compiled when --max_minutes=0.04 were over"
    )


def test_ctrl_c_ends_it_and_its_compiler_at_once(config):
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.plan", config, "--topology=cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    (worker,) = _children(process.pid)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and errors.strip() == "stopped; nothing was rented"
    assert not pathlib.Path(f"/proc/{worker}").exists()


def _children(pid):
    """Its processes, once there are any."""
    for _ in range(200):
        found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return [int(part) for part in found]
        time.sleep(0.1)
    raise AssertionError("it has started no compiler")


# --- the TPU's ---


@needs_libtpu
def test_a_slice_that_is_none_is_refused(config, capfd):
    status, _, errors = run(capfd, config, "--topology=v5e:3x3")
    assert status == 2 and len(errors) == 1
    assert "--topology=v5e:3x3: libtpu has no such slice" in errors[0]


@needs_libtpu
def test_the_miniature_s_teacher_on_a_slice(config, capfd):
    """The program that compiles in seconds; four devices share a batch, and the teacher."""
    status, lines, errors = run(
        capfd, config, "--topology=v5e:4x4", "--programs=teacher_store", "--price=1.5", "--data=4",
        "--config.teacher.sharding=fsdp",
    )  # fmt: skip
    assert status == 0, errors
    assert lines[0].endswith("on v5e:4x4 (TPU v5 lite), float32")
    assert row(lines, "on each device") == ["teacher store"]
    assert float(row(lines, "a call at least, ms")[0]) > 0
    assert row(lines, "bound by")[0] in ("memory", "arithmetic", "links")
    assert row(lines, "all-gather, number: MB")[0] != "none"
    # Two a device.
    assert lines[-1] == "fits with --config.mesh.data=4 --config.train.batch_size=8"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine may have a GPU")
def test_a_gpu_s_compiler_is_asked_for_where_there_is_none(config, capfd):
    status, _, errors = run(capfd, config, "--topology=gpu:h100x8")
    assert status == 2 and len(errors) == 1
    assert "--topology=gpu:h100x8: a GPU's compiler is not to be had here" in errors[0]
