"""Progress on a terminal and in a log, the rates of training, and the metric files."""

import io
import json
import subprocess
import sys
import threading

import pytest

from stlm_jax.runtime.metric_writer import MetricWriter
from stlm_jax.runtime.progress import Progress, note, track
from stlm_jax.runtime.timer import Timer


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("stlm_jax.runtime.progress.time.monotonic", clock)
    return clock


@pytest.fixture
def log(capsys):
    """What a loop has written to a stderr that is no terminal."""
    return lambda: capsys.readouterr().err


def test_a_log_gets_a_line_per_interval_with_rate_and_time_left(clock, log):
    with Progress("train", 1000, unit="step") as shown:
        for step in range(10, 1001, 10):
            clock.now += 5
            shown.reach(step, {"loss": 0.25})
    lines = log().splitlines()
    assert len(lines) == 17  # 500 s: one for each 30 s, and the last
    assert lines[0] == "train  60/1000   2.00 steps/s  left 07:50, loss 0.25"
    assert lines[-1].startswith("train  1000/1000")


def test_the_rate_counts_the_work_on_an_item(clock, log):
    """50 images of half a second; the clock starts before the first and stops after the last."""
    for _ in track(range(50), "evaluate"):
        clock.now += 0.5
    assert log() == "evaluate  50/50   2.00 images/s  left 00:00\n"


def test_an_empty_loop_says_nothing(log):
    assert list(track([], "read")) == []
    assert log() == ""


def test_a_terminal_gets_one_line_rewritten(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in track(range(3), "t"):
        pass
    assert terminal.getvalue().count("\n") == 1 and "\r" in terminal.getvalue()
    assert "t  3/3" in terminal.getvalue().split("\r")[-1]


def test_a_note_stands_on_a_line_of_its_own(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in track(range(2), "t"):
        note("a warning")
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    assert lines.count("a warning") == 2


def test_a_pause_is_left_out_of_the_rate():
    clock = Clock()
    timer = Timer(0, clock)
    clock.now += 60
    timer.restart(1)
    clock.now += 2
    assert timer.rate(5) == 2.0
    clock.now += 1
    assert timer.rate(15) == 10.0
    clock.now += 1
    assert timer.rate(15) == 10.0  # nothing was done: the rate is as it was


def test_what_is_left_out_of_a_loop_counts_in_no_rate(clock, log):
    with Progress("train", 100, unit="step") as shown:
        clock.now += 60
        shown.leave_out(60)
        clock.now += 10
        shown.reach(100)
    assert log() == "train  100/100  10.00 steps/s  left 00:00\n"


def test_progress_starts_no_thread(log):
    before = threading.active_count()
    for _ in track(range(3), "t"):
        assert threading.active_count() == before


def test_a_resumed_writer_drops_the_steps_it_will_repeat_and_cut_lines(tmp_path):
    with MetricWriter(tmp_path / "metrics.jsonl") as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": float(step)})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 1, "lo')
    with MetricWriter(tmp_path / "metrics.jsonl", start=2) as writer:
        writer.write(3, {"loss": 30.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_without_tensorboardx_the_writer_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with MetricWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(1, {"loss": 1.0})
    assert "stlm_jax[report]" in capsys.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'


def test_events_do_not_cost_an_import_of_torch(tmp_path):
    pytest.importorskip("torch")
    code = (
        "import sys\n"
        "from stlm_jax.runtime.metric_writer import event_writer\n"
        f"event_writer({str(tmp_path)!r}).close()\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; torch.zeros(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.glob("events.out.tfevents.*"))
