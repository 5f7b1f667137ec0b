"""JSON that readers without nan take; files that are whole or absent, and what is left of them."""

import errno
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from stlm_jax.runtime import files
from stlm_jax.runtime.exit_status import exit_status
from stlm_jax.runtime.files import json_text, open_atomically, write_atomically

BEGIN = """
import sys, time
from stlm_jax.runtime.files import open_atomically
with open_atomically(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    time.sleep(60)
"""


def test_numbers_without_a_word_in_json_are_null_at_any_depth():
    content = {"a": [1.5, float("nan")], "b": ({"c": np.float32("inf")}, -np.inf), "d": 3, "e": "x"}

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(json_text(content), parse_constant=refuse)
    assert read == {"a": [1.5, None], "b": [{"c": None}, None], "d": 3, "e": "x"}


def test_what_a_killed_process_was_writing_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    path, other = tmp_path / "table.md", tmp_path / "page.html"
    path.write_text("before")
    (tmp_path / ".notes.tmp").write_text("a user's")
    command = [sys.executable, "-c", BEGIN]
    dead, live = (
        subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE) for file in (path, other)
    )
    try:
        assert dead.stdout.readline() == live.stdout.readline() == b"begun\n"
        dead.kill()
        dead.communicate()
        assert path.read_text() == "before"
        files.sweep.cache_clear()  # this process may have looked before
        write_atomically(tmp_path / "another", "x")
        left = sorted(file.name for file in tmp_path.glob(".*.tmp"))
        assert left == [".notes.tmp", f".page.html.{live.pid}.tmp"]
    finally:
        live.kill()
        live.communicate()


def test_threads_that_write_one_file_write_it_whole(tmp_path):
    contents = [bytes([number]) * 200_000 for number in range(8)]
    threads = [
        threading.Thread(target=write_atomically, args=(tmp_path / "x", content))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("behind", [False, True])
def test_a_full_disk_names_the_file_and_leaves_the_former(tmp_path, capsys, behind):
    path = tmp_path / "model.pt"
    path.write_bytes(b"former")

    def write():
        with open_atomically(path) as file:
            file.write(b"half")
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                if behind:  # as torch has it
                    raise RuntimeError("not written") from None
                raise

    def command():
        try:
            write()
        except RuntimeError as error:
            raise error.__context__ from None

    assert exit_status(command, "stopped") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {path}: No space left on device: free some space and run the same command again"
    )
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["model.pt"]
