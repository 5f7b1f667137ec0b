"""What the value of a configuration key may be."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "names separated by commas",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of range.

    Attributes:
        accepts: whether a value, already of the key's type, is inside.
        text: what a refusal and `--help` say of it, "must be 1 or more"; empty: all are accepted.
    """

    accepts: Callable[[Any], bool] = lambda value: True
    text: str = ""


ANY = Rule()


MOST = 2**31 - 1  # a step's number, like all whole numbers on the device, has 32 bits


def at_least(least: int | float, most: int = MOST) -> Rule:
    """Finite numbers from `least` up; where it is a whole one, whole ones up to `most`."""
    if isinstance(least, int):
        return Rule(lambda v: least <= v <= most, f"must be {least} or more, at most {most}")
    return Rule(lambda v: v >= least and math.isfinite(v), f"must be a number of {least:g} or more")


def between(least: float, most: float) -> Rule:
    """Numbers from `least` to `most`, both included."""
    return Rule(lambda v: least <= v <= most, f"must be in {least:g}..{most:.10g}")


def below(limit: float) -> Rule:
    """Numbers from 0 up that are less than `limit`."""
    return Rule(lambda v: 0 <= v < limit, f"must be 0 or more, below {limit:g}")


TRAIN, DTYPE, FILE = "train", "dtype", "file"  # of data.depth


def range_of(text: str) -> tuple[float, float] | None:
    """The numbers of `LOW,HIGH`, brackets around them or not; None of any other text."""
    try:
        low, high = map(float, text.strip("()[] ").split(","))
    except ValueError:
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def checked_depth(depth: Any) -> str:
    """`depth`, if it is one that a model may have.

    Raises:
        ValueError: where it is not.
    """
    if not isinstance(depth, str) or (depth not in (DTYPE, FILE) and not range_of(depth)):
        raise ValueError(f"depth {depth!r} is neither {DTYPE} nor {FILE} nor LOW,HIGH")
    return depth


def one_of(*names: str) -> Rule:
    """Some texts and no other."""
    return Rule(lambda v: v in names, f"must be one of {', '.join(names)}")


def wrong_type(key: str, value: Any, default: Any) -> str:
    """The line that refuses `value`, where `default` is of the type it must have."""
    return f"--config.{key}={value}: must be {_TYPES[type(default)]}, such as {_example(default)}"


def _example(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(default[:2]) or "bottle,cable"
    return str(default).lower() if isinstance(default, bool) else str(default)
