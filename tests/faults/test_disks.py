"""A full or read-only disk: a line says so, nothing is lost, and work goes on with room."""

import json
import os
import re
import shutil
import subprocess
import sys

import disks
import jax
import pytest
from miniature import write_config
from works import DISK_WORKS

NAMES = [
    pytest.param(work.name, marks=() if work.name == "build" else pytest.mark.slow)
    for work in DISK_WORKS
]


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    if why := disks.can_mount(folder):
        pytest.skip(f"no disk can be made here: {why}")
    shutil.copytree(finished_run, folder / "base")
    write_config(folder / "base/tiny.py", folder / "base/data", ["disc"])
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_is_wrong_and_goes_on(folder, name):
    if name == "report":  # what is there before is of the programs that will be there after
        again = ["evaluate", folder / "base/run", "--config.evaluate.panels=6"]
        subprocess.run([sys.executable, "-m", "stlm_jax.cli.main", *again], check=True)
    process = subprocess.run(
        [sys.executable, disks.__file__, str(folder), name],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    result = json.loads(process.stdout)[name]
    assert result["wrong"] == []
    told = result["told"]
    assert set(told) == {"full", "nearly full", "read-only", "room"}
    for case, start in told.items():
        assert not start["traceback"], start["text"]
        if case == "room":
            assert start["status"] == 0, start["text"]
            continue
        assert start["status"] == 2, (case, start["text"])
        said = re.fullmatch(r"error: (\S+): .*", start["last"])
        assert said and said[1].startswith(str(folder / "disk")), start["last"]
        wanted = "space" if case != "read-only" else "written to|writable|Read-only"
        assert re.search(wanted, start["last"]), start["last"]
