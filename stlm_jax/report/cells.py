"""Numbers as the report's tables show them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

UNDEFINED = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is read.
        value: what the table is sorted by; None sorts last.
        detail: smaller text below, such as an interval.
        reason: why there is no value, where there is none.
    """

    text: str
    value: float | str | None = None
    detail: str = ""
    reason: str = ""


def percent(
    value: float, interval: tuple[float, float] | None = None, reason: str = "", digits: int = 2
) -> Cell:
    """A fraction of 1 in per cent, with its 95 % interval below where it has one."""
    if math.isnan(value):
        return Cell(UNDEFINED, reason=reason or "undefined on these images")
    detail = ""
    if interval and not any(map(math.isnan, interval)):
        detail = "–".join(f"{100 * end:.1f}" for end in interval)
    return Cell(f"{100 * value:.{digits}f}", float(value), detail)


def number(value: float) -> Cell:
    """A number that is not a fraction, to three significant digits."""
    if math.isnan(value):
        return Cell(UNDEFINED, reason="not measured")
    return Cell(f"{value:.3g}", float(value))


def word(text: str) -> Cell:
    """Text, sorted as text."""
    return Cell(text, text.lower())


def count(number_of: int, total: int | None = None) -> Cell:
    """A count; with `total` it reads "3 of 10" and is sorted by the share."""
    if total is None:
        return Cell(str(number_of), number_of)
    return Cell(f"{number_of} of {total}", number_of / total if total else None)


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
