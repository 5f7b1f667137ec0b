"""Freed memory is kept: measured by the page faults of a process that allocates again and again."""

import platform
import subprocess
import sys

import jax
import pytest

from stlm_jax import host_memory

FAULTS = """
import resource, sys
import numpy as np
from stlm_jax.host_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_is_not_fetched_from_the_system_again():
    assert faults("kept") * 10 < faults("not kept")


def test_other_backends_are_left_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not host_memory.keep_freed_memory()
