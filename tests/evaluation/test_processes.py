"""Evaluation by two processes, each of which measures its share of the images."""

import json
import shutil

import numpy as np
import pytest
from other_processes import free_port, in_two_processes

from stlm_jax.report.replicates import read_replicates
from stlm_jax.runtime.gather import gather

PROCESS = """
import sys
import jax
number, port, *argv = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
"""
EVALUATE = """
from stlm_jax.main import main
sys.exit(main(["main", *argv]))
"""
GATHER = """
import numpy as np
from stlm_jax.runtime import gather
gather._PIECE = 1000
own = np.full(700 if number == "0" else 1500, int(number), np.int16)  # more than a piece each
found = gather.gather({"number": int(number), "array": own})
assert [one["number"] for one in found] == [0, 1]
assert [one["array"].tolist() for one in found] == [[0] * 700, [1] * 1500]
assert gather.gather("same") == ["same", "same"]
"""


def both(script, *argv):
    """Status, stdout and stderr of both processes."""
    port = free_port()
    return in_two_processes(lambda number: ["-c", PROCESS + script, number, port, *argv])


def test_one_process_gathers_its_own():
    value = {"a": np.ones(3)}
    assert gather(value) == [value]


def test_values_of_unlike_sizes_reach_every_process():
    for status, _, errors in both(GATHER):
        assert status == 0, errors


def numbers(run):
    """All numbers of an evaluation, by the path of their key."""

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, below in value.items():
                yield from walk(f"{prefix}/{key}", below)
        elif isinstance(value, list):
            for index, below in enumerate(value):
                yield from walk(f"{prefix}/{index}", below)
        else:
            yield prefix, value

    details = json.loads((run / "results/details.json").read_text())
    for name in ("cost", "configuration"):  # which is of this command, and was of training's
        del details[name]
    return dict(walk("", [json.loads((run / "results/metrics.json").read_text()), details]))


def test_two_processes_measure_what_one_measures(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run / "run", run)
    shutil.rmtree(run / "results")
    argv = [f"--config={finished_run / 'tiny.py'}", f"--workdir={run}", "--mode=evaluate"]
    (first, printed, notes), (second, silent, other) = both(EVALUATE, *argv)
    assert first == second == 0, notes + other
    ours, theirs = numbers(run), numbers(finished_run / "run")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == (pytest.approx(value, abs=1e-9) if value else value), key
    ours, theirs = (
        read_replicates(folder / "results/replicates.npz") for folder in (run, finished_run / "run")
    )
    for category, known in theirs.items():
        assert ours[category].digest == known.digest
        for name, values in known.metrics.items():
            np.testing.assert_allclose(ours[category].metrics[name], values, atol=1e-6)
    assert "| **mean** |" in printed and "written to" in notes
    assert "| **mean** |" not in silent and "written to" not in other
    assert len(list((run / "results/panels").iterdir())) == 4


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_both(finished_run, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished_run / "run", run)
    shutil.copytree(finished_run / "data", data)
    (data / "disc/test/spot/001.png").write_bytes(b"no image")
    argv = [f"--config={finished_run / 'tiny.py'}", f"--workdir={run}", "--mode=evaluate"]
    for status, _, errors in both(EVALUATE, *argv, f"--config.data.root={data}"):
        assert status == 2, errors
        assert "error: cannot read" in errors and "disc/test/spot/001.png" in errors
