"""How much memory a program will take, told from what it computes, before it is compiled."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

# What a compiler computes where it is used: no buffer of its own if it is used once.
_FUSED = frozenset({
    "abs", "add", "add_any", "and", "broadcast_in_dim", "clamp", "convert_element_type", "copy",
    "cos", "div", "eq", "erf", "exp", "exp2", "expand_dims", "floor", "ge", "gt", "integer_pow",
    "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "not", "or", "pow", "reshape", "round", "rsqrt", "select_n", "sign", "sin", "slice", "sqrt",
    "square", "squeeze", "stop_gradient", "sub", "tanh", "transpose",
})  # fmt: skip


def bytes_of(tree: Any) -> int:
    """Bytes of the arrays, or of their shapes, in a pytree."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def peak_bytes(program: core.Jaxpr) -> int:
    """The most bytes that what a program computes takes at a time, besides its arguments.

    Values live from where they are computed to their last use, in the program's own order; the
    compiler may choose a better one, and needs room of its own.
    """
    place, uses = _last_uses(program)
    ends: dict[int, list[int]] = {}
    live = peak = 0
    for number, equation in enumerate(program.eqns):
        inner = max((peak_bytes(body) for body in _bodies(equation)), default=0)
        if not _is_fused(equation, uses):
            for value in equation.outvars:
                live += _bytes(value.aval)
                ends.setdefault(place.get(id(value), number), []).append(_bytes(value.aval))
        peak = max(peak, live + inner)
        live -= sum(ends.pop(number, []))
    return peak


def _last_uses(program: core.Jaxpr) -> tuple[dict[int, int], dict[int, int]]:
    """By identity of a value: the number of the last equation that needs it; how many use it."""
    place: dict[int, int] = {id(value): len(program.eqns) for value in program.outvars}
    uses: dict[int, int] = {id(value): 2 for value in program.outvars}
    for equation in program.eqns:
        for value in equation.invars:
            uses[id(value)] = uses.get(id(value), 0) + 1
    for number in reversed(range(len(program.eqns))):
        equation = program.eqns[number]
        last = number
        if _is_fused(equation, uses):
            last = place.get(id(equation.outvars[0]), number)
        for value in equation.invars:
            place[id(value)] = max(place.get(id(value), 0), last)
    return place, uses


def _is_fused(equation: Any, uses: dict[int, int]) -> bool:
    return equation.primitive.name in _FUSED and uses.get(id(equation.outvars[0]), 0) < 2


def _bodies(equation: Any) -> Iterator[core.Jaxpr]:
    for value in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda v: isinstance(v, (core.Jaxpr, core.ClosedJaxpr)),
    ):
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _bytes(value: Any) -> int:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return 0
    size = 1
    for side in shape:
        size *= int(side)
    return size * getattr(dtype, "itemsize", 8)
