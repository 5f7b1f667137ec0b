"""How processes end: signals while compiling, closed outputs, readers that go, two in a folder."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from miniature import stand_in_step, write_config

from stlm_jax.main import main

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def place(finished_run, tmp_path):
    for name in ("data", "run"):
        shutil.copytree(finished_run / name, tmp_path / name)
    write_config(tmp_path / "tiny.py", tmp_path / "data")
    return tmp_path


def command(place, *arguments, workdir="run"):
    config = f"--config={place / 'tiny.py'}"
    return [config, f"--workdir={place / workdir}", *arguments]


def shell(line, **environment):
    """Status, output and errors of a line of a shell, in which `$MAIN` is the program."""
    program = f"{shlex.quote(sys.executable)} -m stlm_jax.main"
    return subprocess.run(
        ["bash", "-c", line.replace("$MAIN", program)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


def started(arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "stlm_jax.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


# --- a first start that fails ---


def test_a_first_start_that_fails_settles_nothing(place, capsys, monkeypatch):
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    new = f"--workdir={place / 'new'}"
    first = ["main", f"--config={place / 'tiny.py'}", new, "--config.data.categories=disc"]
    for teacher in ("", str(place / "none.pth"), "demo"):
        assert main([*first, f"--config.teacher.checkpoint={teacher}"]) == 2
        assert not (place / "new/config.json").exists()
    for path in (place / "data/disc/train/good").iterdir():
        shutil.copy(path, path.with_name(f"other_{path.name}"))
    broken = place / "data/disc/train/good/000.png"
    broken.write_text("no image")
    assert main([*first, "--config.seed=5"]) == 2  # when the first images are read
    capsys.readouterr()
    broken.unlink()
    assert main([*first, "--config.train.steps=2"]) == 0
    assert json.loads((place / "new/config.json").read_text())["seed"] == 0
    capsys.readouterr()
    assert main([*first, "--config.train.steps=2", "--config.seed=5"]) == 2
    assert "was trained with config.seed=0, now it is 5" in capsys.readouterr().err


def test_nothing_is_printed_after_the_line_of_a_failed_start(place):
    line = f"$MAIN {shlex.join(command(place, '--config.teacher.checkpoint=', workdir='new'))}"
    for _ in range(3):
        ended = shell(line)
        assert ended.returncode == 2 and ended.stdout == ""
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith("error: config.teacher.checkpoint is empty"), ended.stderr
        assert "Traceback" not in ended.stderr


# --- two processes in one folder ---


def test_a_second_training_is_refused_and_readers_are_not(place, capsys):
    endless = command(place, "--config.train.steps=1000000", "--config.data.categories=disc")
    first = started(endless)
    lock = place / "run/lock"
    while not (lock.exists() and lock.read_text()) and first.poll() is None:
        time.sleep(0.05)
    try:
        assert main(["main", *endless]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith(f"error: {place / 'run'}: process {first.pid} on {os.uname()[1]} ")
        reading = ["--config.data.categories=disc", "--config.evaluate.panels=0"]
        assert main(["main", *command(place, "--mode=evaluate", *reading)]) == 0
        image = place / "data/disc/test/good/000.png"
        options = ("--mode=predict", f"--config.predict.input={image}")
        assert main(["main", *command(place, *options, *reading)]) == 0
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert lock.exists()  # and locks nobody out
    assert main(["main", *command(place, "--config.train.steps=1")]) == 2
    assert "more than the 1 asked for" in capsys.readouterr().err
    assert not lock.exists()


def test_thresholds_of_an_earlier_checkpoint_do_not_count(place):
    from stlm_jax.inference import calibration

    folder = place / "run/disc"
    known = calibration.load(folder)
    assert known and json.loads((folder / "calibration.json").read_text())["made_with"]["step"] == 6
    calibration.store(folder, known, step=4)
    assert calibration.load(folder) is None
    calibration.store(folder, known)  # as the release before did
    assert calibration.load(folder) == known


# --- signals ---


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_is_heard_while_the_compiler_works(place, name, status, tmp_path):
    fresh = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "no_cache")}
    process = started(command(place, workdir="new"), **fresh)
    for line in process.stderr:
        if line.startswith("parameters"):  # the table's last line; then the step is compiled
            break
    time.sleep(1)
    process.send_signal(getattr(signal, name))
    errors = process.communicate()[1]
    assert process.returncode == status, errors
    assert "stopped" in errors.splitlines()[-1]
    assert "Traceback" not in errors and not (place / "new/lock").exists()


@pytest.mark.slow
def test_sigterm_saves_the_step_of_an_endless_training(place):
    endless = ["--config.train.steps=1000000", "--config.checkpoint.every_steps=4"]
    process = started(command(place, *endless, workdir="new"))
    folder = place / "new/disc/checkpoints"
    while not (folder / "8").is_dir() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate()[1]
    assert process.returncode == 143, errors
    said = re.fullmatch(
        r"disc: stopped at step (\d+) of 1000000, saved; .*", errors.splitlines()[-1]
    )
    assert said and int(said[1]) == max(int(path.name) for path in folder.glob("[0-9]*"))
    assert "Traceback" not in errors and not list(folder.glob("*tmp*"))


@pytest.mark.parametrize("moment", ["compiling", "reading", "folding in"])
def test_sigterm_is_heard_while_evaluation_runs(place, moment, monkeypatch, capsys):
    from stlm_jax.evaluation.measurements import Measurements

    asleep, done = [], threading.Event()

    def signal_and_sleep(*_, **__):
        asleep.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        done.wait(60)
        raise RuntimeError("woken too late for anything")

    def signalled(function):
        def acting(*arguments, **named):
            if not asleep:
                asleep.append(1)
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*arguments, **named)

        return acting

    if moment == "compiling":
        endless = type("Endless", (), {"lower": signal_and_sleep})
        monkeypatch.setattr("stlm_jax.inference.predictor.jit", lambda *_, **__: endless())
    elif moment == "reading":
        from stlm_jax.evaluation import measure

        replaced = signalled(measure.read_test_image)
        monkeypatch.setattr("stlm_jax.evaluation.measure.read_test_image", replaced)
    else:
        monkeypatch.setattr(Measurements, "fold", signalled(Measurements.fold))
    assert main(["main", *command(place)]) == 143
    done.set()
    printed = capsys.readouterr()
    assert asleep and "run the same command again" in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
    monkeypatch.undo()
    assert main(["main", *command(place)]) == 0


def test_a_compiler_that_never_returns_is_left_behind(place, monkeypatch, capsys):
    from stlm_jax.training.train import Trainer

    asleep, done = threading.Event(), threading.Event()

    class Endless:
        def lower(self, *_):
            asleep.set()
            signal.raise_signal(signal.SIGINT)  # is heard in the main thread
            done.wait(60)

    def trainer_of(config, template, make=Trainer):
        trainer = make(config, template)
        trainer.step = Endless()
        return trainer

    monkeypatch.setattr("stlm_jax.training.train.Trainer", trainer_of)
    assert main(["main", *command(place, workdir="new")]) == 130
    done.set()
    assert asleep.is_set() and "while compiling" in capsys.readouterr().err


# --- outputs ---


def test_closed_outputs_are_written_to_nowhere(place):
    evaluate = shlex.join(command(place, "--mode=evaluate", "--config.evaluate.panels=0"))
    shutil.rmtree(place / "run/results")
    ended = shell(f"$MAIN {evaluate} <&- >&- 2>&-")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    results = place / "run/results"
    assert (results / "table.md").is_file() and (results / "report.html").is_file()
    wrong = shlex.join(command(place, "--config.seed=x"))
    assert shell(f"$MAIN {wrong} 2>&-").returncode == 2
    ended = shell(f"$MAIN {wrong} >&-")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_goes_loses_no_results(place):
    evaluate = shlex.join(command(place, "--mode=evaluate", "--config.evaluate.panels=0"))
    shutil.rmtree(place / "run/results")
    ended = shell(f"set -o pipefail; $MAIN {evaluate} | true")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr + ended.stdout
    assert "written to" in ended.stderr and "Exception" not in ended.stderr
    assert (place / "run/results/report.html").is_file()
    ended = shell(f"$MAIN {evaluate} > /dev/full")
    assert ended.returncode == 2 and "No space left" in ended.stderr.splitlines()[-1]


def test_a_reader_of_errors_that_goes_ends_it_in_silence(place):
    wrong = shlex.join(command(place, "--config.seed=x"))
    ended = shell(f"set -o pipefail; $MAIN {wrong} 2>&1 | true")
    assert ended.returncode in (1, 2) and ended.stderr == ""
