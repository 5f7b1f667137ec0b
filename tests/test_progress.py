"""The progress line and the metric files."""

import io
import json

from stlm_jax.progress import ProgressLine, format_seconds
from stlm_jax.writers import MetricWriter


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_file_gets_a_line_per_interval_with_rates_and_time_left():
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine("train", 1000, 0, 2, interval=30, stream=stream, clock=clock)
    for step in range(10, 1001, 10):
        clock.now += 5
        line.update(step, {"loss": 0.25})
    line.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 18  # 500 s: the first, one for each 30 s after it, the last
    assert lines[1] == ("train  step 70/1000  loss 0.25  2 steps/s  4 images/s  left 7:45")
    assert lines[-1].startswith("train  step 1000/1000") and lines[-1].endswith("left 0:00")


def test_a_terminal_gets_one_line_rewritten_without_remains():
    stream, clock = Terminal(), Clock()
    line = ProgressLine("t", 3, stream=stream, clock=clock)
    line.update(1, {"loss": 123456.0})
    line.update(2)
    line.close()
    first, second = stream.getvalue().removesuffix("\n").split("\r")[1:]
    assert len(second) >= len(first) and second.rstrip() == "t  step 2/3"


def test_restarted_clock_leaves_a_pause_out_of_the_rate():
    clock = Clock()
    line = ProgressLine("t", 100, stream=io.StringIO(), clock=clock)
    clock.now += 60
    line.restart_clock(1)
    clock.now += 2
    line.update(5)
    assert line.rate == 2.0


def test_seconds_are_rounded_and_written_with_hours_when_needed():
    assert [format_seconds(s) for s in (0.4, 59.6, 3599, 3600)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
    ]


def test_a_resumed_writer_drops_the_steps_it_will_repeat_and_cut_lines(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": float(step)})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 1, "lo')
    with MetricWriter(tmp_path, start=2) as writer:
        writer.write(3, {"loss": 30.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_without_tensorboardx_the_writer_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
    assert "stlm_jax[report]" in capsys.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'
