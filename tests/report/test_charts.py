import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from stlm_jax.report.charts import CURVES, curve_chart, score_histogram

pytest.importorskip("matplotlib")

CURVE = SimpleNamespace(x=np.array([0.0, 0.25, 1.0]), y=np.array([0.0, 0.5, 1.0]))


def bars(svg):
    """{(colour, in full): images in all bars of that look}, read off the axis."""
    pattern = r'<path d="M ([^"]*) z " [^>]*style="fill: var\(--(good|defective)\)(; opacity)?'
    ticks = re.findall(r'text-anchor: end[^>]* y="([\d.]+)"[^>]*>(\d+)<', svg)
    places = {int(label): float(y) for y, label in ticks}
    high = max(places)
    unit = abs(places[high] - places[0]) / high
    counts = {}
    for path, colour, faint in re.findall(pattern, svg):
        ys = [float(point.split()[1]) for point in path.split(" L ")]
        key = colour, not faint
        counts[key] = counts.get(key, 0) + (max(ys) - min(ys)) / unit
    return counts


def test_histogram_counts_each_image_once_on_its_side_of_the_threshold():
    """A score at the threshold is not above it, as in the rates."""
    good, defective = [0.1, 0.2, 0.5, 0.8], [0.3, 0.5, 0.9, 0.95, 0.95]
    counts = bars(score_histogram("a", good, defective, 0.5))
    expected = {
        ("good", False): 3,
        ("good", True): 1,
        ("defective", False): 3,
        ("defective", True): 2,
    }
    assert counts == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("threshold", [-3.0, 0.0, 0.123456, 1.0, 7.0, None])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_histogram_holds_all_images_wherever_the_threshold_is(threshold, shift):
    scores = np.random.default_rng(0).random(40) + shift
    counts = bars(score_histogram("a", scores[:15], scores[15:], threshold))
    assert sum(n for (colour, _), n in counts.items() if colour == "good") == pytest.approx(
        15, 0.02
    )
    assert sum(counts.values()) == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize("threshold", [0.0599, 0.05986, 0.00123, 0.5, 12.34, 1e-7])
def test_the_histogram_names_the_threshold_and_its_ticks_as_they_are(threshold):
    svg = score_histogram("a", [0.2 * threshold], [1.7 * threshold], threshold)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    (said,) = [text for text in texts if text.startswith("threshold ")]
    assert float(said.removeprefix("threshold ")) == pytest.approx(threshold, rel=5e-3)
    ticks = re.findall(r"text-anchor: middle[^>]*>([\d.]+)<", svg)
    assert len(set(ticks)) == len(ticks)


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5]])
def test_histogram_of_few_or_equal_scores(scores):
    counts = bars(score_histogram("a", scores, [], 0.5))
    assert sum(counts.values()) == pytest.approx(len(scores), abs=0.01)


def test_a_curve_goes_where_its_points_are():
    svg = curve_chart("a", CURVES["pixel_roc"], CURVE, None, (0.5, 0.25))
    box = re.search(r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', svg)
    left, top, width, height = map(float, box.groups())

    def place(x, y):
        return left + x * width, top + (1 - y) * height

    line = re.search(r'd="M ([^"]*?)" [^>]*var\(--accent\)', svg)[1]
    drawn = [tuple(map(float, point.split())) for point in line.split(" L ")]
    expected = [place(x, y) for x, y in zip(CURVE.x, CURVE.y, strict=True)]
    np.testing.assert_allclose(drawn, expected, atol=0.02)
    marker = re.search(r'<use [^>]*x="(.*?)" y="(.*?)"', svg)
    np.testing.assert_allclose([*map(float, marker.groups())], place(0.5, 0.25), atol=0.02)
    assert "var(--muted)" not in svg
    both = curve_chart("a", CURVES["pixel_roc"], CURVE, CURVE, (math.nan, 1.0))
    assert "var(--muted)" in both and "<use" not in both


def test_charts_take_colours_and_fonts_from_the_page_and_names_from_nowhere():
    charts = [
        curve_chart("a", CURVES["pro"], CURVE, CURVE, (0.1, 0.5)),
        curve_chart("b", CURVES["pro"], CURVE, CURVE, (0.1, 0.5)),
        score_histogram("c", [0.1, 0.2], [0.3], 0.25),
    ]
    for svg in charts:
        assert not re.search(r"#[0-9a-f]{6}|http|font-family|xmlns|<style", svg)
        used = set(re.findall(r'(?:url\(|href=")#(\w+)', svg))
        assert used == set(re.findall(r' id="(\w+)"', svg))
    ids = [name for svg in charts for name in re.findall(r' id="(\w+)"', svg)]
    assert len(ids) == len(set(ids))
