"""A forest plot: differences to the baseline with their intervals, one line a setting."""

import math
from collections.abc import Mapping

from launch.study.statistics import Difference
from stlm_jax.report.charts import (
    ACCENT,
    DEFECTIVE,
    INK,
    INK_2,
    LINE,
    MUTED,
    PAPER,
    as_svg,
    new_figure,
)

_WIDTH, _TEXT = 4.8, 10  # inches, points
_LABEL = 22  # characters of a setting's name that fit beside the plot
_FAR = 4  # times the middle interval's reach: what lies farther is told at the edge


def forest_plot(name: str, differences: Mapping[str, Difference | None], baseline: str) -> str:
    """Points and 95 % intervals in points of a metric, as SVG.

    Args:
        name: unlike that of every other chart on the page.
        differences: by setting, from the top; None where it was not compared.
        baseline: the setting that zero is.
    """
    longest = max(len(_short(setting)) for setting in differences)
    left, right, bottom, top = 0.085 * longest + 0.15, 0.15, 0.55, 0.08
    height = 0.3 * len(differences) + bottom + top
    figure, axes = new_figure(_WIDTH, height, _TEXT)
    axes.set_position(
        (
            left / _WIDTH,
            bottom / height,
            1 - (left + right) / _WIDTH,
            1 - (bottom + top) / height,
        )
    )
    low, high = _ends([found for found in differences.values() if found is not None])
    axes.axvline(0, color=INK_2, lw=1)
    axes.set(xlim=(low, high), ylim=(len(differences) - 0.4, -0.6))
    for row, found in enumerate(differences.values()):
        _draw(axes, row, found)
    axes.set_yticks(range(len(differences)), [_short(setting) for setting in differences])
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    axes.set_xlabel(f"points more than {_short(baseline)}")
    axes.grid(axis="x", color=LINE, lw=0.6)
    return as_svg(figure, name)


def colour_of(found: Difference) -> str:
    """Of a setting that is better, worse, or may be neither."""
    if found.is_noise:
        return MUTED
    return ACCENT if found.estimate > 0 else DEFECTIVE


def _draw(axes, row: int, found: Difference | None) -> None:
    (low, high), note = axes.get_xlim(), {"va": "center", "size": _TEXT - 1, "color": MUTED}
    if found is None or math.isnan(found.estimate):
        axes.text(0, row, " not compared", ha="left" if high > -low else "right", **note)
        return
    at, colour = 100 * found.estimate, colour_of(found)
    if not low <= at <= high:
        end, inwards, sign = (high, -1, ">") if at > high else (low, 1, "<")
        width = inwards * (high - low)
        axes.plot(end + 0.02 * width, row, sign, color=colour, ms=7)
        note |= {"color": INK, "ha": "right" if at > high else "left"}
        axes.text(end + 0.05 * width, row, f"{at:+.1f}", **note)
        return
    if not math.isnan(found.low):
        ends = max(low, 100 * found.low), min(high, 100 * found.high)
        axes.plot(ends, [row, row], color=colour, lw=2.2, solid_capstyle="butt")
    face = PAPER if found.is_noise else colour
    axes.plot(at, row, "o", ms=7, mfc=face, mec=colour, mew=1.6)


def _ends(found: list[Difference]) -> tuple[float, float]:
    """Where the axis ends, in points: about zero, and not far beyond most settings."""
    triples = [(one.estimate, one.low, one.high) for one in found]
    known = [[100 * x for x in triple if not math.isnan(x)] for triple in triples]
    reaches = sorted(max(map(abs, numbers)) for numbers in known if numbers)
    if not reaches or not reaches[-1]:
        return -1.0, 1.0
    middle = reaches[(len(reaches) - 1) // 2]
    limit = min(reaches[-1], _FAR * middle) if middle else reaches[-1]
    numbers = [min(limit, max(-limit, x)) for some in known for x in some]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    room = 0.08 * (high - low)
    return low - room, high + room


def _short(setting: str) -> str:
    return setting if len(setting) <= _LABEL else f"{setting[: _LABEL - 1]}…"
