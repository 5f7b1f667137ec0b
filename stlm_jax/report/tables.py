"""Results of all categories as Markdown, CSV and JSON.

Values are fractions of 1; nan where a metric is undefined.
"""

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

from stlm_jax.evaluation.results import MEAN, MetricTable, with_mean
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_atomically, write_json
from stlm_jax.runtime.paths import path_of
from stlm_jax.workdir import METRICS, TABLE, TABLE_CSV

PAPER = (
    "The paper's own figures, on MVTec AD, not measured here: "
    "pixel AUROC 98.26, PRO 94.92, 16 M parameters, 20 ms an image."
)
_OWN = ("folder", "tfds")  # sources that may be anybody's: the figures say nothing about them
_WORDS = {"auroc": "AUROC", "ap": "AP", "f1max": "F1max", "aupro": "AUPRO", "fa": "FA"}


def paper_line(source: str) -> str:
    """`PAPER` below results on a published data set, `config.data.source`; else nothing."""
    return "" if source in _OWN else PAPER


def format_table(results: MetricTable) -> str:
    """An aligned Markdown table in percent with two decimals, as the papers print them.

    One row for each category in the order given and the mean last; `-` where there is no value.
    """
    rows = _rows(results)
    rows[-1] = [f"**{cell}**" if cell != "-" else cell for cell in rows[-1]]
    return align(rows)


def format_csv(results: MetricTable) -> str:
    """The same rows as `format_table`, comma-separated; nothing where there is no value."""
    return as_csv([["" if cell == "-" else cell for cell in row] for row in _rows(results)])


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as comma-separated lines."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()


def align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of text, the headings first, as an aligned Markdown table that ends with a newline.

    The first `left` columns are set to the left, the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    table = ""
    for row in (rows[0], rule, *rows[1:]):
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in pairs]
        table += f"| {' | '.join(cells)} |\n"
    return table


def write_tables(
    directory: str | os.PathLike, results: MetricTable, closing: str = ""
) -> tuple[Path, Path, Path]:
    """Writes `metrics.json` (fractions, null for nan), `table.md` and `table.csv`; their paths.

    `closing` is text that `table.md` ends with.
    """
    complete = with_mean(results)
    return (
        write_json(path_of(directory) / METRICS, complete),
        write_atomically(path_of(directory) / TABLE, format_table(complete) + closing),
        write_atomically(path_of(directory) / TABLE_CSV, format_csv(complete)),
    )


def read_results(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """What `write_tables` put into a `metrics.json`, null as nan."""
    try:
        loaded = read_json(path_of(path))
        return {
            name: {
                metric: math.nan if value is None else float(value)
                for metric, value in values.items()
            }
            for name, values in loaded.items()
        }
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} does not hold results; write it with the evaluation") from error


def _rows(results: MetricTable) -> list[list[str]]:
    complete = with_mean(results)
    metrics = list(complete[MEAN])
    rows = [
        [name, *(percent(values.get(metric, math.nan)) for metric in metrics)]
        for name, values in complete.items()
    ]
    return [["category", *map(heading, metrics)], *rows]


def heading(metric: str) -> str:
    """`pixel_auroc` as "pixel AUROC", `aupro_0.05` as "AUPRO 0.05"."""
    return " ".join(_WORDS.get(word, word) for word in metric.split("_"))


def percent(value: float) -> str:
    """A fraction in percent with two decimals; `-` of nan."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
