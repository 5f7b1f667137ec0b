"""What a program is said to take against what XLA says after compiling it."""

import jax
import jax.numpy as jnp
import pytest

from stlm_jax.runtime.program_memory import bytes_of, peak_bytes

SIDE = 512
SQUARE = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)


def products(x):
    return ((x @ x) @ x) @ x


def layers(x):
    for _ in range(6):
        x = jnp.tanh(x @ x)
    return x.sum()


def scanned(x):
    return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=4)[0].sum()


def elementwise(x):
    return (jnp.exp(x) * 2 + jnp.sin(x) - x**2).sum()


@pytest.mark.parametrize("function", [jax.grad(layers), scanned])
def test_it_is_within_a_factor_of_two(function):
    traced = jax.jit(function).trace(SQUARE)
    analysis = traced.lower().compile().memory_analysis()
    told = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    assert told / 2 < peak_bytes(traced.jaxpr.jaxpr) < 2 * told


def test_of_a_chain_two_values_live_at_a_time():
    assert peak_bytes(jax.jit(products).trace(SQUARE).jaxpr.jaxpr) == 2 * SIDE * SIDE * 4


def test_what_is_computed_where_it_is_used_takes_nothing():
    assert peak_bytes(jax.jit(elementwise).trace(SQUARE).jaxpr.jaxpr) < SIDE * SIDE


def test_bytes_of_arrays_and_shapes():
    assert bytes_of({"a": SQUARE, "b": jnp.zeros(3, jnp.uint8), "c": None}) == SIDE * SIDE * 4 + 3
