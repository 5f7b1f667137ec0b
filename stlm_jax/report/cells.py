"""Numbers as the report's tables show them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

UNDEFINED = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | str | None = None  # what the table is sorted by; None comes last
    detail: str = ""  # smaller text below, such as an interval
    reason: str = ""  # why there is no value, where there is none


def percent(value: float, interval: tuple[float, float] | None = None, reason: str = "") -> Cell:
    """A fraction of 1 in per cent, with its 95 % interval below where it has one."""
    if math.isnan(value):
        return Cell(UNDEFINED, reason=reason or "undefined on these images")
    detail = ""
    if interval and not any(map(math.isnan, interval)):
        detail = "–".join(f"{100 * end:.1f}" for end in interval)
    return Cell(f"{100 * value:.2f}", float(value), detail)


def number(value: float) -> Cell:
    """A number that is not a fraction, to three significant digits."""
    if math.isnan(value):
        return Cell(UNDEFINED, reason="not measured")
    return Cell(f"{value:.3g}", float(value))


def word(text: str) -> Cell:
    """Text, sorted as text."""
    return Cell(text, text.lower())


def metric_cells(
    names: list[str],
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    reasons: Mapping[str, str],
) -> list[Cell]:
    """A cell for each of `names`; a metric that is not among `values` is undefined."""
    return [
        percent(values.get(name, math.nan), intervals.get(name), reasons.get(name, ""))
        for name in names
    ]
