"""Operations of a traced program, loops included, which compilers' counts leave out."""

import math
from typing import Any

from jax.extend import core


def flops(program: core.Jaxpr, turns: float = 1.0) -> float:
    """Operations of the products of matrices and the convolutions of a traced program.

    A product and the sum that takes it are two. Of branches the dearest counts. What is written
    for one device counts on each.

    Args:
        program: traced.
        turns: of its loops of which only the device knows how often they turn; others are `scan`s.
    """
    total = 0.0
    for equation in program.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(flops(branch.jaxpr, turns) for branch in parameters["branches"])
        else:
            times = _times(name, parameters, turns)
            total += times * sum(flops(body, turns) for body in _bodies(parameters))
    return total


def _times(name: str, parameters: dict[str, Any], turns: float) -> float:
    """How often the programs among an equation's parameters run."""
    if name == "shard_map":
        return math.prod(parameters["mesh"].shape[axis] for axis in parameters["newly_manual_axes"])
    return {"scan": parameters.get("length", 1), "while": turns}.get(name, 1)


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    kernel = equation.invars[1].aval.shape
    numbers = equation.params["dimension_numbers"]
    # Each output is a sum over the kernel's places and the input's channels of its group. Of the
    # places most fall on the zeros that a dilated input is spread with.
    places = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    spread = math.prod(equation.params["lhs_dilation"])
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * places / spread


def _bodies(parameters: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs among an equation's parameters; of a rule for gradients the call alone."""
    bodies = []
    for value in parameters.values():
        if isinstance(value, core.ClosedJaxpr):
            bodies.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            bodies.append(value)
    return bodies
