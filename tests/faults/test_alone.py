"""Without a network, and with a clock that is set back again and again, all goes on as ever."""

import json
import math
import os
import subprocess
import sys

import jax
import pytest
from miniature import write_config
from other_processes import REPOSITORY

# Run by Python before anything else. Whatever reaches beyond this machine is noted and refused.
SITE = """
import os, sys, time

def note(line):
    with open(os.environ["TOUCHED"], "a") as file:
        file.write(line + "\\n")

def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
        if host not in (None, "", "localhost", "127.0.0.1", "::1"):
            note(f"{event} {host}")
            raise OSError("there is no network")
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            note(f"{event} {address}")
            raise OSError("there is no network")

sys.addaudithook(hook)
real, calls = time.time, [0]

def back():  # ten minutes earlier at each call
    calls[0] += 1
    return real() - 600 * calls[0]

time.time, time.time_ns = back, lambda: int(back() * 1e9)
"""
COMMANDS = """
import importlib, json, pkgutil, sys, time
import stlm_jax

for module in pkgutil.walk_packages(stlm_jax.__path__, "stlm_jax."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:  # of an extra that is not installed
        assert not str(error.name).startswith("stlm_jax"), error

from stlm_jax.cli.main import main

config, run, photos, out = sys.argv[1:]
for command in (
    ["train", f"--config={config}", f"--workdir={run}", "--config.train.steps=8"],
    ["evaluate", run],
    ["predict", f"{run}/disc", photos, "--recursive", f"--output={out}"],
):
    before = time.time()
    assert main(["stlm", *command]) == 0, command
    assert time.time() < before  # the clock was set back meanwhile
"""


@pytest.fixture(scope="module")
def alone(finished_run):
    """A folder in which a run went on so and was used, and what was said."""
    folder = finished_run
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(SITE)
    config = write_config(folder / "tiny.py", folder / "data", ["disc"])
    places = [config, folder / "run", folder / "data/disc/test", folder / "out"]
    process = subprocess.run(
        [sys.executable, "-c", COMMANDS, *map(str, places)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(REPOSITORY)]),
            "TOUCHED": str(folder / "touched"),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return folder, process.stderr


def test_no_import_and_no_command_reaches_out(alone):
    folder, _ = alone
    assert not (folder / "touched").exists(), (folder / "touched").read_text()


def test_a_clock_that_is_set_back_makes_nothing_negative(alone):
    folder, said = alone
    lines = [json.loads(line) for line in (folder / "run/disc/metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines[3:]:  # the others are of another clock
        assert all(math.isfinite(value) for value in line.values())
        assert all(line[name] > 0 for name in line if "second" in name), line
    rows = [json.loads(line) for line in (folder / "out/predictions.jsonl").open()]
    assert len(rows) == 5 and all(row["ms"] > 0 and "error" not in row for row in rows)
    cost = json.loads((folder / "run/results/details.json").read_text())["cost"]
    assert all(value > 0 for value in cost.values() if isinstance(value, (int, float)))
    progress = [line for line in said.splitlines() if "left " in line]
    assert progress and not any(" -" in line for line in progress), progress
    assert (folder / "run/disc/checkpoints/8").is_dir()
