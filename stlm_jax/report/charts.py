"""Charts as inline SVG: curves and score histograms, coloured by the page's CSS variables."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stlm_jax.metrics import Curve
from stlm_jax.runtime.errors import UserError

# matplotlib writes these colours, which nothing else has; the page puts its own in their place.
_NAMES = "ink-2", "line", "accent", "muted", "good", "defective", "ink", "paper"
_VARIABLES = {f"#0{i}0{i}0{i}": f"--{name}" for i, name in enumerate(_NAMES, 1)}
INK_2, LINE, ACCENT, MUTED, GOOD, DEFECTIVE, INK, PAPER = _VARIABLES
_RIGHT_OPACITY = 0.4  # of a histogram's bars on their side of the threshold; 1 on the wrong one
_BINS = 32


@dataclass(frozen=True)
class Kind:
    """One sort of curve: its title, the metric that is its area, its axes, where x ends."""

    title: str
    metric: str
    x: str
    y: str
    limit: float = 1.0


CURVES = {
    "image_roc": Kind("Image ROC", "image_auroc", "false positive rate", "true positive rate"),
    "image_pr": Kind("Image PR", "image_ap", "recall", "precision"),
    "pixel_roc": Kind("Pixel ROC", "pixel_auroc", "false positive rate", "true positive rate"),
    "pixel_pr": Kind("Pixel PR", "pixel_ap", "recall", "precision"),
    "pro": Kind("PRO", "aupro", "false positive rate", "per-region overlap", 0.3),
}


def curve_chart(
    name: str,
    kind: Kind,
    with_fa: Curve | None,
    without_fa: Curve | None,
    at: tuple[float, float] = (math.nan, math.nan),
) -> str:
    """A curve of the maps with and without FA, as SVG; None leaves one out.

    `name` differs from that of every other chart on the page. The calibrated threshold lies `at`
    a point of the curve with FA; nan for nowhere.
    """
    figure, axes = new_figure(2.4, 1.85, 9)
    if without_fa is not None:
        axes.plot(without_fa.x, without_fa.y, color=MUTED, lw=1.2, ls=(0, (3, 2)))
    if with_fa is not None:
        axes.plot(with_fa.x, with_fa.y, color=ACCENT, lw=1.8, solid_joinstyle="round")
    if not any(map(math.isnan, at)):
        style = {"mfc": PAPER, "mec": INK, "mew": 1.4}
        axes.plot(*at, "o", ms=6, clip_on=False, zorder=5, **style)
    axes.set(xlim=(0, kind.limit), ylim=(0, 1), xlabel=kind.x, ylabel=kind.y)
    axes.set_xticks(np.linspace(0, kind.limit, 4 if kind.limit < 1 else 5))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.grid(color=LINE, lw=0.6)
    return as_svg(figure, name)


def score_histogram(
    name: str, good: Sequence[float], defective: Sequence[float], threshold: float | None
) -> str:
    """Image scores of good images upwards and of defective ones downwards, as SVG.

    Bars beyond the threshold on the wrong side, misses and false alarms, are in full colour; a
    bin ends at the threshold, so none straddles it. `name` is as in `curve_chart`.
    """
    figure, axes = new_figure(5.6, 2.3, 8.5)
    edges = _edges(np.concatenate([good, defective]), threshold)
    centres, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    highest = 1
    rows = ((good, GOOD, 1, False), (defective, DEFECTIVE, -1, True))
    for scores, colour, direction, above in rows:
        # A score at the threshold is below it: bins hold their upper end, not their lower one.
        counts = np.histogram(-np.asarray(scores), -edges[::-1])[0][::-1]
        highest = max(highest, *counts)
        right = np.ones(len(counts), bool)
        if threshold is not None:
            right = (edges[:-1] >= threshold) == above
        for side, opacity in ((right, _RIGHT_OPACITY), (~right, 1.0)):
            chosen = side & (counts > 0)
            heights = direction * counts[chosen]
            axes.bar(centres[chosen], heights, 0.9 * widths[chosen], color=colour, alpha=opacity)
    axes.axhline(0, color=INK_2, lw=0.8)
    if threshold is not None:
        axes.axvline(threshold, color=INK, lw=1.2)
        to_left = threshold > (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"threshold {threshold:.3g}",
            (threshold, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if to_left else 4, -7),
            textcoords="offset points",
            ha="right" if to_left else "left",
            color=INK,
            size=9,
        )
    axes.set(xlabel="image score", ylabel="images", ylim=(-1.1 * highest, 1.3 * highest))
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(_matplotlib().ticker.MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axes.grid(axis="y", color=LINE, lw=0.6)
    return as_svg(figure, name)


def _edges(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Bins of one width with all scores and the threshold inside; one of them ends at it."""
    marks = scores if threshold is None else np.append(scores, threshold)
    low, high = (float(marks.min()), float(marks.max())) if len(marks) else (0.0, 1.0)
    width = (high - low) / _BINS or max(abs(high), 1.0) / _BINS
    start = low if threshold is None else threshold
    first, last = math.floor((low - start) / width) - 1, math.ceil((high - start) / width) + 1
    numbers = np.arange(first, last + 1)
    return np.where(numbers == 0, start, start + width * numbers)


def new_figure(width: float, height: float, text: float):
    """A figure of so many inches, which the page stretches, and its axes; `text` is in points."""
    figure = _matplotlib().figure.Figure((width, height), facecolor="none")
    # Margins in inches that hold the labels: having them measured draws everything twice.
    left, right, bottom, top = 4.4 * text / 72, 0.12, 3.6 * text / 72, 0.07
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK_2, length=0, labelsize=text)
    axes.spines[:].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK_2, size=text)
    return figure, axes


def as_svg(figure, name: str) -> str:
    """The figure as SVG to stand inside HTML: no names, no fonts, no address."""
    buffer = io.StringIO()
    with _matplotlib().rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"<svg[^>]*viewBox", '<svg aria-hidden="true" focusable="false" viewBox', svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"(/?)>', lambda g: "" if g[1] else "<g>", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # matplotlib before 3.11
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"\s*\n\s*", " ", svg).strip()


def _matplotlib():
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as error:
        raise UserError(
            "the report needs matplotlib; install it with `pip install 'stlm_jax[report]'`"
        ) from error
    return matplotlib
