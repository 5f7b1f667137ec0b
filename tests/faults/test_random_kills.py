"""Work that was killed at random moments leaves what work leaves that never was."""

import os
import shutil
import subprocess
import sys

import jax
import pytest
import random_kills
from miniature import write_config
from works import WORKS


def ended(*arguments):
    """What the runner says, which must find nothing wrong."""
    process = subprocess.run(
        [sys.executable, random_kills.__file__, *map(str, arguments)],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr[-5000:]
    return process.stdout


@pytest.fixture
def folder(finished_run, tmp_path):
    """With `base`: the run that the session has trained once, and its data."""
    shutil.copytree(finished_run, tmp_path / "base")
    write_config(tmp_path / "base/tiny.py", tmp_path / "base/data", ["disc"])
    return tmp_path


def test_a_few_kills(folder):
    assert "| predict | 3 | " in ended(folder, "predict", "--kills=3", "--seed=1")


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    table = ended(tmp_path)
    assert all(f"| {work.name} | 20 | " in table for work in WORKS) and len(WORKS) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_at_any_moment_ends_with_a_line(tmp_path, name):
    table = ended(tmp_path, "--kills=6", f"--signal={name}")
    assert all(f"| {work.name} | 6 | " in table for work in WORKS)
