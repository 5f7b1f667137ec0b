"""Whether weights are of the model that they are for, and are numbers at all."""

from collections.abc import Mapping

import numpy as np

from stlm_jax.runtime.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]  # by name


def require_same_shapes(
    actual: Shapes, expected: Shapes, optional: Shapes | None = None, listed: int | None = None
) -> None:
    """Raises UserError, which lists what differs, unless names and shapes are those expected.

    Args:
        actual: of the weights.
        expected: of the model.
        optional: may be there too.
        listed: how many names of each kind are listed; all by default.
    """
    known = {**expected, **(optional or {})}
    problems = {
        "missing": [name for name in expected if name not in actual],
        "unexpected": [name for name in actual if name not in known],
        "misshapen": [
            f"{name} {shape}, not {known[name]}"
            for name, shape in actual.items()
            if shape != known.get(name, shape)
        ],
    }
    lines = []
    for kind, names in problems.items():
        shown = names[:listed]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        lines += [f"{kind}: {', '.join(shown)}{more}"] if names else []
    if lines:
        raise UserError(f"the weights are of another model; {'; '.join(lines)}")


def require_finite(path: object, name: str, array: np.ndarray) -> None:
    """Raises UserError where a number of the tensor `name` of the file `path` is not finite."""
    if array.dtype.kind in "iub":
        return
    finite = np.isfinite(array)
    if not finite.all():
        bad = finite.size - np.count_nonzero(finite)
        raise UserError(
            f"{path}: {name} holds {bad} of {finite.size} numbers that are not finite; the file is "
            "damaged or its training diverged: give another"
        )
