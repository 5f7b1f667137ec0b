"""The compiler options."""

import numpy as np
import pytest

from stlm_jax.runtime import compilation


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
