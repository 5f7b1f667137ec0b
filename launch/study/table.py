"""A study as one table: a setting in each row, as Markdown and as comma-separated values."""

import math

from launch.study.comparison import Comparison, Row, label
from launch.study.statistics import Difference
from stlm_jax.report.tables import align, as_csv, heading, percent
from stlm_jax.runtime.text import printable

NOTHING = "-"


def markdown(comparison: Comparison) -> str:
    """The table of the metrics with the FA module, then what a reader must know."""
    study, shown = comparison.study, comparison.shown
    headings = ["setting", "what it changes"]
    for metric in shown:
        headings += [heading(metric), "difference"]
    rows = [[*headings, "seeds", "training of a run", "teacher passes", "trials"]]
    for row in comparison.rows:
        cells = [name_of(row, comparison), row.changes or NOTHING]
        for metric in shown:
            cells += [row.spreads[metric].text, difference_text(row.differences.get(metric))]
        cells += [str(len(row.seeds)), duration(row.seconds), count(row.passes), row.state]
        rows.append([printable(cell).replace("|", "\\|") for cell in cells])
    text = align(rows, left=2) + "\n" + "\n".join(explained(comparison)) + "\n"
    for title, lines in (
        ("To be known:", study.notes),
        ("Not compared, or not with all seeds:", comparison.remarks),
        ("Without results:", failures(comparison)),
    ):
        if lines:
            text += (
                "\n" + "\n".join([title, "", *(f"- {printable(line)}" for line in lines)]) + "\n"
            )
    return text


def comma_separated(comparison: Comparison) -> str:
    """All metrics in per cent and their differences in points, with p-values, one row a setting."""
    headings = ["setting", "changes"]
    for metric in comparison.metrics:
        name = heading(metric)
        headings += [name, f"{name} std"]
        headings += [f"{name} {what}" for what in ("difference", "low", "high", "p")]
    rows = [[*headings, "seeds", "seconds a run", "teacher passes a run", "together", "trials"]]
    for row in comparison.rows:
        cells = [row.setting, row.changes]
        for metric in comparison.metrics:
            spread, found = row.spreads[metric], row.differences.get(metric)
            numbers = [spread.mean, spread.std]
            numbers += [found.estimate, found.low, found.high] if found else [math.nan] * 3
            cells += ["" if math.isnan(number) else percent(number) for number in numbers]
            cells.append(f"{found.p:.3g}" if found and not math.isnan(found.p) else "")
        cells += [str(len(row.seeds)), *map(_plain, (row.seconds, row.passes))]
        rows.append([*cells, str(row.together or ""), row.state])
    return as_csv([[printable(cell) for cell in row] for row in rows])


def explained(comparison: Comparison) -> list[str]:
    """What the numbers are, in lines."""
    seeds = ", ".join(map(str, comparison.study.seeds))
    lines = [
        f"Mean ± sample standard deviation over the seeds ({seeds}), in per cent, of the mean over "
        f"{_plural(len(comparison.images), 'category', 'categories')}.",
        f"Difference to {comparison.study.baseline} in points, with its 95 % interval over seeds "
        "and test images, both paired; bold where zero lies outside, all else may be noise.",
    ]
    found = [found for row in comparison.rows for found in row.differences.values()]
    lines += sorted({f"Some intervals are {one.remark}." for one in found if one.remark})
    return lines


def failures(comparison: Comparison) -> list[str]:
    """The trials without results, a line each."""
    return [
        f"{label(trial)}: {trial.state}" + (f": {trial.why}" if trial.why else "")
        for trial in comparison.unfinished
    ]


def name_of(row: Row, comparison: Comparison) -> str:
    """A setting's name; the baseline says that it is."""
    mark = " (baseline)" if row.setting == comparison.study.baseline else ""
    return f"{row.setting}{mark}"


def difference_text(found: Difference | None) -> str:
    """As `+0.12 [-0.30, +0.54]` in points, in bold where zero lies outside."""
    if found is None or math.isnan(found.estimate):
        return NOTHING
    text = points(found.estimate)
    if not math.isnan(found.low):
        text += f" [{points(found.low)}, {points(found.high)}]"
    return text if found.is_noise else f"**{text}**"


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{100 * fraction:+.2f}"


def p_text(p: float) -> str:
    """A p-value; nothing of nan."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if math.isnan(seconds):
        return NOTHING
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def count(number: float) -> str:
    """A number of things, in groups of three digits."""
    return NOTHING if math.isnan(number) else f"{number:,.0f}"


def _plain(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.1f}"


def _plural(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
