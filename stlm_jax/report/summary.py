"""The report's tables and the figures above them."""

import math
from collections import Counter
from dataclasses import dataclass, field

from stlm_jax.evaluation.results import (
    FALSE_ALARM,
    MEAN,
    MISS,
    WITHOUT_FA,
    CategoryResult,
    RunResult,
    verdict,
    with_mean,
)
from stlm_jax.report import tables
from stlm_jax.report.cells import UNDEFINED, Cell, metric_cells, number, percent, word

_RATES = {
    "image_false_alarm_rate": "images: false alarms",
    "image_miss_rate": "images: misses",
    "pixel_false_alarm_rate": "pixels: false alarms",
    "pixel_miss_rate": "pixels: misses",
}
_MEAN_REASON = "undefined for at least one category"
_HEADLINE = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
_SOURCES = {
    "validation": "validation split",
    "held_out": "held-out images",
    "training": "training images, optimistic",
    "f1max": "largest F1 of validation",
}


@dataclass(frozen=True)
class Table:
    """A table that can be sorted."""

    groups: list[tuple[str, int]]  # (heading, columns it spans) above the columns
    columns: list[str]  # headings
    rows: list[list[Cell]]  # the first cell of each is the row's heading
    last: list[Cell] = field(default_factory=list)  # stays last however the others are sorted


@dataclass(frozen=True)
class Figure:
    """A number of the run's that is read first."""

    name: str
    value: Cell
    note: str
    unit: str


def headline(run: RunResult) -> list[Figure]:
    """Means over the categories, false alarms and misses, and the cost."""
    names = [name for name in _HEADLINE if name in run.mean] or _with_fa(run)[:4]
    figures = []
    for name in names:
        without = run.mean.get(f"{name}{WITHOUT_FA}")
        note = "" if without is None else f"without FA {percent(without).text}"
        value = percent(run.mean[name], reason=_MEAN_REASON)
        figures.append(Figure(tables.heading(name), value, note, "%"))
    rates = _mean_rates(run)
    for rate, name, note in (
        ("image_false_alarm_rate", "false alarms", "of good images"),
        ("image_miss_rate", "misses", "of defective images"),
    ):
        value = percent(rates.get(rate, math.nan), reason="no threshold, or no such image")
        figures.append(Figure(name, value, note, "%"))
    cost = run.cost
    size, flops = number(cost.parameters / 1e6), number(cost.flops / 1e9).text
    figures.append(Figure("parameters", size, f"{flops} GFLOP an image", "M"))
    note = f"an image, batches of {cost.batch_size}"
    return [*figures, Figure("latency", number(cost.latency_ms), note, "ms")]


def metrics_table(run: RunResult) -> Table:
    """All metrics of all categories with both maps, the mean last."""
    names = _with_fa(run)
    without = [name for name in names if f"{name}{WITHOUT_FA}" in run.mean]
    rows = []
    for category in run.categories:
        cells = [word(category.category)]
        for shown, result in ((names, category.result), (without, category.result_without_fa)):
            cells += metric_cells(shown, result.values, result.intervals, result.reasons)
        rows.append(cells)
    every = [*names, *(f"{name}{WITHOUT_FA}" for name in without)]
    last = [word("mean"), *(percent(run.mean[name], reason=_MEAN_REASON) for name in every)]
    first = "with FA" if without else ""  # which a model with one map may not have
    groups = [("", 1), (first, len(names)), ("without FA", len(without))]
    headings = [tables.heading(name) for name in (*names, *without)]
    return Table([g for g in groups if g[1]], ["category", *headings], rows, last)


def calibration_table(run: RunResult) -> Table:
    """Thresholds, where they are from, and the rates at them; the mean of the rates last."""
    columns = ["category", "threshold", "normaliser", "pixel threshold", "estimated from", "images"]
    rows = []
    for category in run.categories:
        cells = [Cell(UNDEFINED, reason="no image to estimate it from")] * 5
        if category.calibration:
            known = category.calibration
            numbers = known.threshold, known.normaliser, known.pixel_threshold
            source = word(_SOURCES.get(known.source, known.source))
            cells = [*map(number, numbers), source, Cell(str(known.images), known.images)]
        rows.append([word(category.category), *cells, *_rate_cells(category.rates)])
    last = [word("mean"), *[Cell("")] * 5, *_rate_cells(_mean_rates(run))]
    groups = [("", 1), ("estimated without the test images", 5), ("at the thresholds, %", 4)]
    return Table(groups, [*columns, *_RATES.values()], rows, last)


def defect_table(category: CategoryResult) -> Table:
    """Metrics by type of defect, its images against all good ones; the good images first."""
    by_defect = category.result.by_defect
    names = list(dict.fromkeys(name for values in by_defect.values() for name in values))
    images = Counter(image.defect for image in category.images)
    wrong = Counter(
        image.defect
        for image in category.images
        if verdict(image, category.calibration) in (MISS, FALSE_ALARM)
    )
    defective = {image.defect for image in category.images if image.label}
    rows = []
    for defect in sorted(images, key=lambda name: (name in defective, name)):
        values = by_defect.get(defect, {}) if defect in defective else {}
        reasons = dict.fromkeys(names, "" if defect in defective else "these images have no defect")
        share = Cell(UNDEFINED, reason="no threshold")
        if category.calibration:
            text = f"{wrong[defect]} of {images[defect]}"
            share = Cell(text, wrong[defect] / images[defect])
        rows.append([word(defect), share, *metric_cells(names, values, {}, reasons)])
    headings = ["type", "wrong", *(tables.heading(name) for name in names)]
    return Table([], headings, rows)


def _with_fa(run: RunResult) -> list[str]:
    return [name for name in run.mean if not name.endswith(WITHOUT_FA)]


def _mean_rates(run: RunResult) -> dict[str, float]:
    return with_mean({c.category: c.rates for c in run.categories})[MEAN]


def _rate_cells(rates: dict[str, float]) -> list[Cell]:
    reason = "no threshold, or no such image with ground truth"
    return [percent(rates.get(name, math.nan), reason=reason) for name in _RATES]
