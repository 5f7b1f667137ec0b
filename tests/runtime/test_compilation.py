"""The compiler options."""

import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from other_processes import REPOSITORY

from stlm_jax.runtime import compilation
from stlm_jax.runtime.interrupt import Interrupted


@pytest.fixture(autouse=True)
def forget_options():
    compilation._options.cache_clear()
    yield
    compilation._options.cache_clear()


def test_the_installed_jaxlib_knows_every_option():
    assert compilation._options("cpu") == compilation.CPU_OPTIONS


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "CPU_OPTIONS", {"xla_cpu_no_such_option": True})
    assert compilation._options("cpu") == {}
    assert compilation.jit(lambda x: x + 1)(2) == 3


def test_accelerators_get_no_options_of_the_cpu():
    assert compilation._options("gpu") == compilation._options("tpu") == {}


def test_arguments_are_those_of_jax_jit():
    repeat = compilation.jit(lambda x, times: np.float32(2) * x[:times], static_argnums=1)
    np.testing.assert_array_equal(repeat(np.arange(3.0), 2), [0, 2])


def test_what_was_compiled_apart_is_not_compiled_again():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    program = compilation.jit(lambda x, n: x * 3 + n, static_argnums=1, donate_argnums=0)
    values = jax.numpy.ones(5)
    compilation.compile_apart(program, values, 2)
    before = len(compiled)
    program(values, 2)
    assert before and len(compiled) == before


def test_a_compilation_can_be_given_up():
    asleep = threading.Event()

    class Endless:
        def lower(self, *_):
            asleep.wait(60)

    with pytest.raises(Interrupted):
        compilation.compile_apart(Endless(), stop=lambda: True)
    asleep.set()


def test_an_error_of_the_compiler_is_the_callers():
    with pytest.raises(TypeError):
        compilation.compile_apart(compilation.jit(lambda x: x + "a"), 1)


START = """
import jax, pathlib, sys
from stlm_jax.runtime.compilation import jit, use_compilation_cache
use_compilation_cache(pathlib.Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jit(lambda x: 3 * x + 1)(2))
"""


def test_a_program_that_was_being_written_at_a_kill_is_written_anew(tmp_path):
    def start():
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
        ended = subprocess.run(
            [sys.executable, "-c", START, str(tmp_path)],
            env={**environment, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert (ended.returncode, ended.stdout) == (0, "7\n"), ended.stderr
        assert "persistent compilation cache" not in ended.stderr
        return {path.name: path.read_bytes() for path in tmp_path.glob("*-cache")}

    whole = start()
    assert whole
    for path in tmp_path.glob("*-cache"):
        os.truncate(path, path.stat().st_size // 2)
    start()
    again = start()
    assert {name: len(content) for name, content in again.items()} == {
        name: len(content) for name, content in whole.items()
    }
