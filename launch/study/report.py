"""A study as one HTML page that needs nothing else."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.study import table
from launch.study.comparison import Comparison, Row
from launch.study.forest import forest_plot
from launch.study.statistics import Difference
from stlm_jax import report
from stlm_jax.report.page import environment
from stlm_jax.report.tables import heading, percent
from stlm_jax.runtime.files import encoded, open_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.workdir import read_run

_HERE = Path(__file__).parent
_BETTER, _WORSE = "better", "worse"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    detail: str = ""  # smaller, below
    kind: str = ""  # `better`, `worse` or neither


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Panel:
    """A metric's forest plot."""

    title: str
    svg: str
    alt: str


def write_report(path: str | os.PathLike, comparison: Comparison) -> Path:
    """Writes the page, one HTML file that opens without a network; its path."""
    path = path_of(path)
    page = (
        environment(_HERE)
        .get_template("report.html")
        .render(
            study=comparison.study,
            lead=_lead(comparison),
            panels=[_panel(metric, comparison) for metric in comparison.shown if comparison.paired],
            results=_results(comparison),
            categories=[_of_categories(metric, comparison) for metric in comparison.shown],
            without_fa=_differences(
                "Without the FA module, %", comparison.metrics[len(comparison.shown) :], comparison
            ),
            cost=_cost(comparison),
            remarks=comparison.remarks,
            failures=table.failures(comparison),
            explained=_method(comparison),
            facts=_facts(comparison),
            style=(Path(report.__file__).parent / "style.css").read_text(encoding="utf-8")
            + (_HERE / "report.css").read_text(encoding="utf-8"),
        )
    )
    with open_atomically(path) as file:
        file.write(encoded(page))
    return path


def _lead(comparison: Comparison) -> str:
    """What was compared, in a sentence."""
    study = comparison.study
    done = len(comparison.outcomes)
    planned = len(study.settings) * len(study.seeds)
    categories = ", ".join(comparison.images) or "no category yet"
    return (
        f"{len(study.settings) - 1} settings against the baseline {study.baseline}, "
        f"{len(study.seeds)} {'seed' if len(study.seeds) == 1 else 'seeds'} each, on {categories}; "
        f"{done} of {planned} runs have results."
    )


def _panel(metric: str, comparison: Comparison) -> Panel:
    baseline = comparison.study.baseline
    rows = [row for row in comparison.rows if row.setting != baseline]
    found = {row.setting: row.differences.get(metric) for row in rows}
    told = [f"{name} {table.difference_text(one).strip('*')}" for name, one in found.items()]
    alt = f"{heading(metric)}, points more than {baseline}: {'; '.join(told)}"
    return Panel(heading(metric), forest_plot(f"forest {metric}", found, baseline), alt)


def _results(comparison: Comparison) -> Table:
    made = _differences("Results, %", comparison.shown, comparison)
    columns = [*made.columns, "p by Holm", "seeds", "trials"]
    for row, cells in zip(comparison.rows, made.rows, strict=True):
        p = comparison.adjusted.get(row.setting, math.nan)
        cells += [
            Cell(table.p_text(p) or table.NOTHING),
            Cell(str(len(row.seeds))),
            Cell(row.state),
        ]
    return Table(made.caption, columns, made.rows)


def _differences(caption: str, metrics: list[str], comparison: Comparison) -> Table:
    """A row a setting, a column a metric; below the mean stands the difference."""
    columns = ["setting", *map(heading, metrics)]
    rows = []
    for row in comparison.rows:
        cells = [Cell(table.name_of(row, comparison), row.changes)]
        for metric in metrics:
            cells.append(_cell(row.spreads[metric].text, row.differences.get(metric)))
        rows.append(cells)
    return Table(caption, columns, rows)


def _of_categories(metric: str, comparison: Comparison) -> Table:
    """A row a setting, a column a category: the difference, or the baseline's own value."""
    categories = list(comparison.images)
    rows = []
    for row in comparison.rows:
        cells = [Cell(table.name_of(row, comparison))]
        for category in categories:
            if row.setting == comparison.study.baseline:
                cells.append(Cell(percent(_mean_of(row, category, metric, comparison))))
                continue
            found = row.by_category.get(category, {}).get(metric)
            if found is None or math.isnan(found.estimate):
                cells.append(Cell(table.NOTHING))
            else:
                cells.append(Cell(table.points(found.estimate), _interval(found), _kind(found)))
        rows.append(cells)
    caption = f"{heading(metric)}: of the baseline in %, of the others the difference in points"
    return Table(caption, ["setting", *categories], rows)


def _mean_of(row: Row, category: str, metric: str, comparison: Comparison) -> float:
    outcomes = [comparison.outcomes[row.setting, seed] for seed in row.seeds]
    values = [one.values.get(category, {}).get(metric, math.nan) for one in outcomes]
    return math.fsum(values) / len(values) if values else math.nan


def _cost(comparison: Comparison) -> Table:
    first = comparison.rows[0]
    rows = []
    for row in comparison.rows:
        cells = [Cell(table.name_of(row, comparison)), Cell(str(row.together or table.NOTHING))]
        for text, own, base in (
            (table.duration(row.seconds), row.seconds, first.seconds),
            (table.count(row.passes), row.passes, first.passes),
        ):
            times = (
                f"{own / base:.2f} × the baseline" if base and not math.isnan(own / base) else ""
            )
            cells.append(Cell(text, times if row is not first else ""))
        rows.append(cells)
    columns = ["setting", "runs in one program", "training of a run", "teacher passes of a run"]
    return Table("Cost, mean over the runs that are done", columns, rows)


def _cell(text: str, found: Difference | None) -> Cell:
    if found is None or math.isnan(found.estimate):
        return Cell(text)
    return Cell(text, f"{table.points(found.estimate)} {_interval(found)}".strip(), _kind(found))


def _interval(found: Difference) -> str:
    if math.isnan(found.low):
        return ""
    return f"[{table.points(found.low)}, {table.points(found.high)}]"


def _kind(found: Difference) -> str:
    return "" if found.is_noise else _BETTER if found.estimate > 0 else _WORSE


def _method(comparison: Comparison) -> list[str]:
    """How the intervals are made, in plain sentences."""
    drawn = comparison.replicates
    lines = [
        "Each run is set against the baseline’s run of the same seed, and all of them are measured "
        f"on the same {drawn} drawn sets of test images (images drawn with repetition, good and "
        "defective apart), so that what is hard for every model cancels.",
        "The standard error has two parts, how much the difference varies from seed to seed and "
        "how much from drawn set to drawn set; the 95 % interval is Student’s, with Welch and "
        "Satterthwaite’s degrees of freedom.",
        "A difference whose interval holds zero may be noise; of many settings some lie outside by "
        "chance, which p by Holm allows for"
        + (f" ({heading(comparison.metrics[0])})." if comparison.metrics else "."),
    ]
    found = [one for row in comparison.rows for one in row.differences.values()]
    return lines + sorted({f"Some intervals are {one.remark}." for one in found if one.remark})


def _facts(comparison: Comparison) -> Mapping[str, str]:
    known = {
        "baseline": comparison.study.baseline,
        "seeds": ", ".join(map(str, comparison.study.seeds)),
        "test images": ", ".join(f"{name} {n}" for name, n in comparison.images.items()),
    }
    runs = [read_run(path_of(one.trial.folder)) for one in comparison.outcomes.values()]
    resolutions = {str(one.protocol.get("resolution")) for one in comparison.outcomes.values()}
    known["metrics taken at"] = ", ".join(sorted(resolutions - {"None"}))
    for name, key in (("source revision", "git_revision"), ("command", "command")):
        said = dict.fromkeys(str(run[key]) for run in runs if run.get(key))
        known[name] = next(iter(said), "") + (f" and {len(said) - 1} more" if len(said) > 1 else "")
    return {name: value or table.NOTHING for name, value in known.items()}
