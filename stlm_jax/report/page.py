"""The report of a run as one HTML file that needs nothing else."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlm_jax.drawing.colours import Scale, colours
from stlm_jax.evaluation.results import (
    FALSE_ALARM,
    MISS,
    RIGHT,
    CategoryResult,
    RunResult,
    most_wrong_first,
    verdict,
)
from stlm_jax.report import gallery, run_facts, summary, tables
from stlm_jax.report.cells import percent
from stlm_jax.report.charts import CURVES, curve_chart, score_histogram
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import encoded, open_atomically
from stlm_jax.runtime.paths import path_of

_HERE = Path(__file__).parent
_RATE_OF_CURVE = {"image_roc": "image", "pixel_roc": "pixel"}  # on which the threshold lies


@dataclass(frozen=True)
class Chart:
    """A chart, or why there is none."""

    title: str
    svg: str = ""
    alt: str = ""  # what it shows, for those who cannot see it
    areas: Sequence[str] = ("", "")  # under the curves with and without FA, in per cent
    reason: str = ""


@dataclass(frozen=True)
class Section:
    """All that the page says of one category."""

    id: str  # of the element, unlike any other
    name: str
    good: int  # how many good images were tested
    defective: int
    verdicts: dict[str, int]  # images by verdict but `right`; empty without a threshold
    histogram: Chart
    charts: list[Chart]
    by_defect: summary.Table
    ticks: tuple[float, float, float]  # low end, middle and high end of the maps' colour scale
    panels: list[gallery.Panel]
    defects: dict[str, int]  # panels by type of defect
    calibrated: bool


def write_report(path: str | os.PathLike, run: RunResult) -> Path:
    """Writes the report of a run, one HTML file that opens without a network; its path.

    It is `WORKDIR/results/report.html`; what is known of the run's start is read from
    `WORKDIR/run.json`, where it is there. `config.report.gallery` panels a category are shown at
    most.
    """
    path = path_of(path)
    template = environment().get_template("template.html")
    page = template.generate(
        facts=run_facts.of_run(run, path.parent.parent),
        headline=summary.headline(run),
        paper=tables.paper_line(run.config.data.source),
        metrics=summary.metrics_table(run),
        calibration=summary.calibration_table(run),
        sections=(_section(index, category, run) for index, category in enumerate(run.categories)),
        names=[(_id(index), category.category) for index, category in enumerate(run.categories)],
        gradient=_gradient(),
        verdict_names=(MISS, FALSE_ALARM, RIGHT),
        two_maps=any(category.result_without_fa.values for category in run.categories),
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script=(_HERE / "script.js").read_text(encoding="utf-8"),
    )
    with open_atomically(path) as file:
        for part in page:  # a category at a time: the pictures are most of it
            file.write(encoded(part))
    return path


def _section(index: int, category: CategoryResult, run: RunResult) -> Section:
    calibration, images = category.calibration, category.images
    ordered = most_wrong_first(images, calibration)
    scale = Scale.of(calibration.pixel_threshold if calibration else None)
    panels = [
        gallery.panel(image, calibration, scale) for image in ordered[: run.config.report.gallery]
    ]
    verdicts = Counter(verdict(image, calibration) for image in images)
    defective = sum(bool(image.label) for image in images)
    return Section(
        id=_id(index),
        name=category.category,
        good=len(images) - defective,
        defective=defective,
        verdicts={name: verdicts[name] for name in (MISS, FALSE_ALARM)} if calibration else {},
        histogram=_histogram(index, category),
        charts=_charts(index, category),
        by_defect=summary.defect_table(category),
        ticks=scale.ticks,
        panels=panels,
        defects=dict(sorted(Counter(panel.defect for panel in panels).items())),
        calibrated=calibration is not None,
    )


def _charts(index: int, category: CategoryResult) -> list[Chart]:
    charts = []
    with_fa, without_fa = category.result.curves, category.result_without_fa.curves
    for name, kind in CURVES.items():
        pair = with_fa.get(name), without_fa.get(name)
        if pair == (None, None):
            reason = category.result.reasons.get(kind.metric, "no curve on these images")
            charts.append(Chart(kind.title, reason=reason))
            continue
        level = _RATE_OF_CURVE.get(name)
        at = (
            category.rates.get(f"{level}_false_alarm_rate", math.nan),
            1 - category.rates.get(f"{level}_miss_rate", math.nan),
        )
        svg = curve_chart(f"{name} {index}", kind, *pair, at)
        areas = [
            percent(result.values[kind.metric]).text if kind.metric in result.values else ""
            for result in (category.result, category.result_without_fa)
        ]
        maps = " with and without FA" if without_fa else ""
        alt = f"{kind.title}: {kind.y} over {kind.x}{maps}"
        charts.append(Chart(kind.title, svg, alt, areas))
    return charts


def _histogram(index: int, category: CategoryResult) -> Chart:
    scores = {
        label: [image.score for image in category.images if bool(image.label) == label]
        for label in (False, True)
    }
    threshold = category.calibration.threshold if category.calibration else None
    svg = score_histogram(f"histogram {index}", scores[False], scores[True], threshold)
    alt = f"scores of {len(scores[False])} good and {len(scores[True])} defective images"
    return Chart("Image scores", svg, alt)


def _id(index: int) -> str:
    return f"category-{index + 1}"


def _gradient() -> str:
    """The colour scale of the maps as CSS colours from dark to bright."""
    return ", ".join("rgb({} {} {})".format(*colour) for colour in colours(np.linspace(0, 1, 17)))


def environment(folder: Path = _HERE):
    """What makes pages of a folder's templates, and of those here, such as `head.html`."""
    try:
        import jinja2
    except ImportError as error:
        raise UserError(
            "the report needs jinja2; install it with `pip install 'stlm_jax[report]'`"
        ) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
