"""Whether weights are of the model that they are for."""

from collections.abc import Mapping

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
