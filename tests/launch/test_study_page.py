"""A study's page: its plots and tables, and how it looks in a browser."""

import dataclasses
import html
import math
import re

import pytest
import study_runs
from browser import check_page, contrast, headless
from study_runs import BASELINE, STUDY

from launch.study.forest import forest_plot
from launch.study.statistics import UNDEFINED, Difference
from launch.study.write import write_study

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
NOTE = "only 60 steps <b>& no more</b>"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study = dataclasses.replace(STUDY, notes=(NOTE,))
    write_study(folder / "study", study, study_runs.trials(folder))
    return folder / "study" / "report.html"


@pytest.fixture(scope="module")
def page(path):
    return path.read_text(encoding="utf-8")


def rows(page, caption):
    """The text of a table's cells, row by row; what stands below in brackets."""
    table = re.search(rf"<caption>{re.escape(caption)}.*?</table>", page, re.S)[0]
    body = table[table.index("<tbody>") :]
    found = []
    for row in re.findall("<tr>.*?</tr>", body, re.S):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        cells = [re.sub(r"<small>(.*?)</small>", r" (\1)", cell) for cell in cells]
        found.append([html.unescape(cell).strip() for cell in cells])
    return found


def test_it_says_what_was_compared_and_what_was_not(page):
    assert f"<h1>Study: {STUDY.name}</h1>" in page
    assert html.escape(NOTE) in page and "<b>& no more" not in page
    assert "3 settings against the baseline both, 3 seeds each, on bottle, cable" in page
    assert "10 of 12 runs have results" in page
    assert "<li>plain, seed 2: diverged: loss is nan at step 31</li>" in page
    assert "the same 200 drawn sets of test images" in page
    assert "0123abc" in page and "python -m stlm_jax.main" in page and "bottle 24, cable 24" in page
    assert not re.search(r"https?:|src=|\bnan\b(?! at step)", page)


def test_the_tables_agree_with_the_markdown(page, path):
    text = (path.parent / "table.md").read_text()
    results = rows(page, "Results, %")
    assert [row[0] for row in results] == [
        "both (baseline)",
        "plain (student.streams=plain)",
        "no_fa (student.fa=False)",
        "level_1 (student.levels=(1,) student.decoder=None)",
    ]
    for row in results[1:]:
        for cell in row[1:5]:
            value, difference = re.fullmatch(r"(.*) \((.*)\)", cell).groups()
            assert value in text and difference in text
    assert rows(page, "Cost")[3][1:] == ["12", "4.6 min (4.13 × the baseline)",
                                         "1,231 (1.02 × the baseline)"]  # fmt: skip
    categories = rows(page, "AUPRO: of the baseline in %")
    assert [len(row) for row in categories] == [3] * 4
    assert re.fullmatch(r"\+\d+\.\d\d \(\[\+.*, \+.*\]\)", categories[3][1])


def test_there_is_a_plot_for_each_metric_with_its_text(page):
    figures = re.findall(r"<figcaption>(.*?)</figcaption>\s*<div role=\"img\" aria-label=\"(.*?)\"",
                         page)  # fmt: skip
    assert [title for title, _ in figures] == ["image AUROC", "pixel AUROC", "pixel AP", "AUPRO"]
    for title, alt in figures:
        assert alt.startswith(f"{title}, points more than both: plain -")
    assert page.count("<svg") == 4


def difference(estimate, reach=0.01):
    return Difference(estimate, estimate - reach, estimate + reach, 0.5, 3, 0.1, 0.1)


def marks(svg):
    """{colour: x of the points}, left to right in the picture's own units."""
    found = {}
    for x, style in re.findall(r'<use href="[^"]*" x="([\d.]+)"[^>]*style="([^"]*)"', svg):
        if "stroke-width: 1.6" in style:
            found.setdefault(re.search(r"stroke: var\(--([\w-]+)\)", style)[1], []).append(float(x))
    return found


def test_a_forest_plot_shows_where_a_setting_lies():
    found = {
        "better": difference(0.04),
        "noise": difference(0.005),
        "worse": difference(-0.02),
        "absent": None,
        "undefined": UNDEFINED,
    }
    svg = forest_plot("a", found, "full")
    assert "points more than full" in svg and svg.count("not compared") == 2
    for name in found:
        assert f">{name}<" in svg
    places = marks(svg)
    assert set(places) == {"accent", "muted", "defective"}
    (better,), (noise,), (worse,) = places["accent"], places["muted"], places["defective"]
    assert (better - noise) / (better - worse) == pytest.approx(3.5 / 6, abs=1e-3)


def test_a_setting_far_away_is_told_at_the_edge():
    near = {f"near {i}": difference(0.01 * i, 0.02) for i in range(5)}
    svg = forest_plot("a", {**near, "far": difference(-0.5)}, "full")
    assert ">-50.0<" in svg and "−40" not in svg and ">-40<" not in svg
    assert sum(map(len, marks(svg).values())) == 5
    without = dataclasses.replace(difference(0.01), low=math.nan, high=math.nan)
    for alone in ({"x": without}, {"x": difference(0.0, 0.0)}, {"x": None}):
        assert "<svg" in forest_plot("a", alone, "full")


@pytest.fixture(scope="module")
def browser():
    with headless() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_without_requests_errors_or_overflow(browser, path, scheme, width):
    opened = check_page(browser, path.as_uri(), width, scheme)
    assert contrast(opened, "h1") > 7 and contrast(opened, ".subtitle") > 4.5
    assert contrast(opened, "td.better small") > 4.5 and contrast(opened, "td.worse small") > 4
    columns = opened.evaluate("""new Set([...document.querySelectorAll(".forest figure")].map(
        (e) => e.getBoundingClientRect().left)).size""")
    assert columns == (2 if width == 1280 else 1)
    assert opened.locator("details[open]").count() == 1
    opened.close()


def test_names_the_baseline(page):
    assert f"Difference to {BASELINE}" in page
