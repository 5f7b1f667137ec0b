"""Freed memory is kept: measured by the page faults of a process that runs a program repeatedly."""

import platform
import subprocess
import sys

import jax
import pytest

from stlm_jax.runtime import host_memory

# 144 MB of buffers a call, and calls that are not waited for, as the training loop's are not.
FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from stlm_jax.runtime.host_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

@jax.jit
def program(x):
    return jnp.outer(x, x) @ x / x.size

def run(calls):
    x = jnp.ones(6000)
    for _ in range(calls):
        x = program(x)
    x.block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = run(20)
print(run(20) - before)
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
