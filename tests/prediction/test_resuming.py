"""A prediction that was killed goes on where it was, and only with the same model and options."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import stand_in
from other_processes import REPOSITORY
from stand_in import Slow, by_path, grey, predict, rows_of

KILLED = """
import sys
from unittest.mock import patch
import stand_in
def set(name, value):
    patch(name, value).start()
stand_in.use(set, stand_in.Slow(0.02))
sys.exit(stand_in.main(["predict", *sys.argv[1:]]))
"""


def started(*arguments):
    path = os.pathsep.join([str(REPOSITORY), os.path.dirname(stand_in.__file__)])
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def lines(output):
    path = output / "predictions.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def without_times(output, folder):
    rows = by_path(output, folder)
    return {name: {k: v for k, v in row.items() if k != "ms"} for name, row in rows.items()}


def test_a_killed_prediction_goes_on_where_it_was(model, tmp_path, monkeypatch, capsys):
    for index in range(40):
        grey(tmp_path / f"in/{index:02}.png", 20 + index)
    out, options = tmp_path / "out", ["--maps=npy", "--overlays"]
    process = started(model, tmp_path / "in", f"--output={out}", *options)
    wait_for(lambda: lines(out) >= 7, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = lines(out)
    assert 7 <= before < 40
    with open(out / "predictions.jsonl", "rb+") as file:  # whatever it was doing then
        whole = file.read()[: whole_lines(out)]
        file.seek(0)
        file.truncate()
        file.write(whole + b'{"path": "x", "sco')
    for row in map(json.loads, whole.splitlines()):
        assert (out / row["map"]).is_file() and (out / row["overlay"]).is_file()
    (out / "39.png").mkdir(exist_ok=True)
    (out / "39.png/.map.npy.1.tmp").write_bytes(b"half")
    looked = stand_in.use(monkeypatch.setattr, Slow())
    assert predict(model, tmp_path / "in", f"--output={out}", *options) == 0
    assert looked.seen == 40 - before
    printed = capsys.readouterr().err
    assert "its last line was cut" in printed and f"{before} were there already" in printed
    assert (out / "predictions.jsonl").read_bytes().startswith(whole)
    assert predict(model, tmp_path / "in", f"--output={tmp_path / 'at_once'}", *options) == 0
    once = without_times(tmp_path / "at_once", tmp_path / "in")
    assert without_times(out, tmp_path / "in") == once and len(once) == 40
    assert files_of(out) == files_of(tmp_path / "at_once")
    assert predict(model, tmp_path / "in", f"--output={out}", *options) == 0
    assert looked.seen == 40 - before + 40  # those of the other output


def whole_lines(output):
    return (output / "predictions.jsonl").read_bytes().rfind(b"\n") + 1


def files_of(output):
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.parent != output
    }


def test_a_signal_ends_it_and_it_says_how_to_go_on(model, tmp_path):
    for index in range(200):
        grey(tmp_path / f"in/{index:03}.png", 20)
    out = tmp_path / "out"
    process = started(model, tmp_path / "in", f"--output={out}")
    wait_for(lambda: lines(out) >= 3, process)
    process.terminate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "the same command goes on" in error
    assert 3 <= len(rows_of(out)) < 200
    assert not (out / "predictions.lock").exists()


def test_two_at_once_in_an_output_are_refused(model, tmp_path, capsys):
    for index in range(200):
        grey(tmp_path / f"in/{index:03}.png", 20)
    out = tmp_path / "out"
    process = started(model, tmp_path / "in", f"--output={out}")
    wait_for(lambda: lines(out) >= 1, process)
    assert predict(model, tmp_path / "in", f"--output={out}", "--overwrite") == 2
    process.kill()
    process.communicate()
    assert f"process {process.pid}" in capsys.readouterr().err
    assert len(rows_of(out)) >= 1


def test_another_model_or_other_options_are_refused(model, tmp_path, capsys, monkeypatch):
    grey(tmp_path / "in/a.png", 20)
    out = tmp_path / "out"
    again = [tmp_path / "in", f"--output={out}"]
    assert predict(model, *again) == 0
    before = (out / "predictions.jsonl").read_bytes()
    shutil.copy(model, tmp_path / "same.safetensors")
    assert predict(tmp_path / "same.safetensors", *again, "--batch=3", "--on_error=stop") == 0
    capsys.readouterr()

    def refused(*arguments):
        assert predict(*arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert str(out) in line and "--overwrite" in line and line.startswith("error: ")
        assert (out / "predictions.jsonl").read_bytes() == before
        return line

    assert "--maps, which was none, not npy" in refused(model, *again, "--maps=npy")
    assert "--min_area" in refused(model, *again, "--min_area=4")
    stand_in.model_file(tmp_path, b"other weights")
    assert "another model" in refused(model, *again)
    monkeypatch.setattr("stlm_jax.prediction.model.load", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(model, *again, "--overwrite")
    assert (out / "predictions.jsonl").read_bytes() == before  # no model, nothing thrown away
    looked = stand_in.use(monkeypatch.setattr, Slow())
    assert predict(model, *again, "--overwrite") == 0 and looked.seen == 1
    assert len(rows_of(out)) == 1


@pytest.mark.parametrize(
    "damage, word",
    [
        (lambda out: (out / "predictions.json").unlink(), "it is missing"),
        (lambda out: (out / "predictions.json").write_text("{"), "it is damaged"),
        (lambda out: (out / "predictions.json").write_text("[]"), "it is no object"),
        (lambda out: (out / "predictions.jsonl").write_text("x\n{}\n"), "line 1 is damaged"),
    ],
)
def test_damaged_results_are_refused(model, tmp_path, capsys, damage, word):
    grey(tmp_path / "in/a.png", 20)
    out = tmp_path / "out"
    assert predict(model, tmp_path / "in", f"--output={out}") == 0
    damage(out)
    capsys.readouterr()
    assert predict(model, tmp_path / "in", f"--output={out}") == 2
    assert word in capsys.readouterr().err
    assert predict(model, tmp_path / "in", f"--output={out}", "--overwrite") == 0
    assert predict(model, tmp_path / "in", f"--output={out}") == 0 and len(rows_of(out)) == 1


def test_a_disk_that_is_full_loses_no_row(model, tmp_path, capsys, monkeypatch):
    for index in range(5):
        grey(tmp_path / f"in/{index}.png", 20)
    out, real, written = tmp_path / "out", os.fsync, []

    def full(number):
        written.append(number)
        if len(written) == 4:  # the description's, then a map's each
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    assert predict(model, tmp_path / "in", f"--output={out}", "--maps=npy") == 2
    assert "No space left on device" in capsys.readouterr().err
    kept = rows_of(out)
    assert len(kept) < 5 and all((out / row["map"]).is_file() for row in kept)
    monkeypatch.setattr(os, "fsync", real)
    assert predict(model, tmp_path / "in", f"--output={out}", "--maps=npy") == 0
    assert rows_of(out)[: len(kept)] == kept and len(rows_of(out)) == 5
