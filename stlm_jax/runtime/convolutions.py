"""Convolutions in loops and branches of programs for the CPU.

XLA's CPU compiler brings the axes of a convolution into the order that its fast library takes, but
not in the bodies of loops and branches. There a kernel's gradient is computed by plain nested
loops: 40 times slower for one of 3 × 3 on images of 64 × 64 with 64 channels.
"""

import functools
from typing import Any

import jax
from jax import lax
from jax.interpreters import mlir


@functools.cache
def order_convolutions() -> None:
    """Has this process lower convolutions for the CPU with their axes in that order, from now on.

    Programs of other devices stay as they are.
    """
    # There is no public name for what jax does by itself.
    from jax._src.lax.convolution import _conv_general_dilated_lower

    as_it_is = functools.partial(_conv_general_dilated_lower, expand_complex_convolutions=True)
    ordered = mlir.lower_fun(_ordered, multiple_results=False)

    def lower(context: Any, left: Any, right: Any, **parameters: Any) -> Any:
        numbers = parameters["dimension_numbers"]
        known = tuple(numbers) == tuple(_numbers(len(numbers.lhs_spec)))
        return (as_it_is if known else ordered)(context, left, right, **parameters)

    mlir.register_lowering(lax.conv_general_dilated_p, lower, platform="cpu")


def _ordered(left: jax.Array, right: jax.Array, *, dimension_numbers: Any, **others: Any):
    """The convolution of (N, spatial…, C) and (spatial…, I, O), its result turned back."""
    given, rank = dimension_numbers, left.ndim
    images, kernel, result = given.lhs_spec, given.rhs_spec, given.out_spec
    computed = lax.conv_general_dilated_p.bind(
        lax.transpose(left, (images[0], *images[2:], images[1])),
        lax.transpose(right, (*kernel[2:], kernel[1], kernel[0])),
        dimension_numbers=_numbers(rank),
        **others,
    )
    # Where each of the result's axes, (N, spatial…, O), is asked for.
    order = (result[0], *result[2:], result[1])
    return lax.transpose(computed, tuple(order.index(axis) for axis in range(rank)))


def _numbers(rank: int) -> lax.ConvDimensionNumbers:
    spatial = tuple(range(1, rank - 1))
    images, kernel = (0, rank - 1, *spatial), (rank - 1, rank - 2, *range(rank - 2))
    return lax.ConvDimensionNumbers(images, kernel, images)
