"""Convolutions in the order of axes that the CPU's library takes: the same numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from other_processes import python

CASES = [((1, 1), "SAME", (1, 1), 1), ((2, 2), "VALID", (1, 1), 2), ((1, 2), "SAME", (2, 1), 6)]
SHOW = """
import sys
import numpy as np
from runtime import test_convolutions as tests
from stlm_jax.runtime.convolutions import order_convolutions

plain = tests.program(tests.CASES[0]).lower(*tests.arrays(tests.CASES[0])).as_text()
order_convolutions()
order_convolutions()
ordered = [tests.program(case).lower(*tests.arrays(case)).as_text() for case in tests.CASES]
print(tests.orders(plain) - tests.KNOWN and "others before")
print(set().union(*map(tests.orders, ordered)) == tests.KNOWN)
results = [tests.program(case)(*tests.arrays(case)) for case in tests.CASES]
np.savez(sys.argv[1], *(array for result in results for array in result))
"""
KNOWN = {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def arrays(case):
    """Kernels and images; a case is strides, padding, the kernel's dilation and groups."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(3, 3, 3, 6 // case[3], 12))
    return jnp.float32(kernels), jnp.float32(rng.normal(size=(2, 9, 8, 6)))


def gradients(kernel, images, case):
    strides, padding, dilation, groups = case

    def squares(kernel, images):
        given = lax.conv_general_dilated(
            images, kernel, strides, padding, rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        return (given**2).sum()

    return jax.grad(squares, (0, 1))(kernel, images)


def program(case):
    """The gradients for each kernel, in a loop."""
    return jax.jit(lambda kernels, images: lax.map(lambda k: gradients(k, images, case), kernels))


def orders(text):
    """The orders of axes that a lowered program's convolutions have."""
    return set(re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text))


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """What a process says and computes whose convolutions are brought into that order."""
    file = tmp_path_factory.mktemp("ordered") / "found.npz"
    said = python(SHOW, file)
    found = np.load(file)
    return said, [found[name] for name in found.files]


def test_the_order_is_changed_once_it_is_asked_for(ordered):
    assert ordered[0] == "others before\nTrue\n"


@pytest.mark.parametrize("number", range(len(CASES)))
def test_gradients_are_those_of_a_process_that_did_not_ask(ordered, number):
    case = CASES[number]
    kernels, images = arrays(case)
    ours = ordered[1][2 * number : 2 * number + 2]
    for place, kernel in enumerate(kernels):
        for found, alone in zip(ours, gradients(kernel, images, case), strict=True):
            np.testing.assert_allclose(found[place], alone, rtol=1e-4, atol=1e-3)
