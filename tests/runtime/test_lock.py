"""A lock is held by one process, names it, and is released however it ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.lock import only_here

HOLD = """
import pathlib, sys, time
from stlm_jax.runtime.lock import only_here
with only_here(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_named_until_it_is_killed(tmp_path):
    path = tmp_path / "run" / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError) as error:
        with only_here(path):
            raise AssertionError("two hold it")
    expected = f"{path.parent}: process {process.pid} on {socket.gethostname()} trains in it"
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists()
    with only_here(path):
        assert path.read_text().split()[1] == str(os.getpid())
    assert not path.exists()


def test_an_error_inside_releases_it(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), only_here(tmp_path / "lock"):
            raise ZeroDivisionError
    assert not any(tmp_path.iterdir())


def test_where_files_cannot_be_locked_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stlm_jax.runtime.lock.fcntl", None)
    with only_here(tmp_path / "lock"):
        assert "warning: " in capsys.readouterr().err
