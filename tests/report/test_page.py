import dataclasses
import json
import math
import re
import sys

import pytest
from small_results import CALIBRATION, category, image, run

from stlm_jax.config import check
from stlm_jax.data.demo import dataset
from stlm_jax.evaluation.results import RunResult
from stlm_jax.report import write_report
from stlm_jax.runtime.errors import UserError

pytest.importorskip("jinja2")


def page_of(tmp_path, result: RunResult) -> str:
    path = write_report(tmp_path / "run" / "results" / "report.html", result)
    return path.read_text(encoding="utf-8")


def rows(page: str, caption: str) -> list[list[str]]:
    """The text of the cells of a table, row by row, without headings."""
    table = re.search(rf"<caption>{caption}</caption>.*?</table>", page, re.S)[0]
    body = table[table.index("<tbody>") :]
    cells = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r, re.S)
        for r in re.findall("<tr>.*?</tr>", body, re.S)
    ]
    return [[re.sub("<small.*?</small>|<[^>]*>", "", cell) for cell in row] for row in cells]


def test_nothing_is_fetched_from_anywhere(tmp_path):
    page = page_of(tmp_path, run(category()))
    assert (
        "http:" not in page
        and "https:" not in page
        and "//"
        not in re.sub(r"data:[^\"]*|^ *//.*$|// undefined stays last", "", page, flags=re.M)
    )
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("data:", "#")), address
    assert "default-src 'none'" in page


def test_the_tables_hold_the_numbers(tmp_path):
    brick, tile = category("brick"), category("tile", calibration=None)
    page = page_of(tmp_path, run(brick, tile))
    metrics = rows(page, "Metrics, %")
    assert [row[0] for row in metrics] == ["brick", "tile", "mean"]
    expected = [f"{100 * value:.2f}" for value in brick.metrics.values()]
    assert metrics[0][1:] == metrics[2][1:] == expected
    low, high = brick.result.intervals["image_auroc"]
    assert f"{100 * low:.1f}–{100 * high:.1f}" in page
    calibration = rows(page, "Calibration, and how often it is wrong")
    assert calibration[0][1:] == [
        *("0.5", "0.1", "0.4", "held-out images", "8"),
        *("25.00", "40.00", "1.00", "–"),
    ]
    assert calibration[1] == ["tile", *["–"] * 9]
    by_defect = rows(page, "By defect, against all good images, %")
    assert [row[:2] for row in by_defect] == [
        ["good", "1 of 4"],
        ["crack", "1 of 3"],
        ["stain", "1 of 2"],
    ]
    crack = brick.result.by_defect["crack"]
    assert by_defect[1][2:] == [f"{100 * value:.2f}" for value in crack.values()]


def test_what_is_undefined_is_a_dash_with_its_reason(tmp_path):
    only_good = category(images=[image(f"good/{i}", 0.1 * i) for i in range(4)])
    reason = only_good.result.reasons["aupro"]
    page = page_of(tmp_path, run(only_good))
    assert rows(page, "Metrics, %")[0][1:] == ["–"] * 8
    assert f'title="{reason}"' in page.replace("&#39;", "'")
    assert f'<p class="nothing">{reason}</p>' in page.replace("&#39;", "'")
    assert "nan" not in re.sub('data:[^"]*|<script>.*?</script>', "", page, flags=re.S)


def test_the_facts_of_the_run(tmp_path):
    result = run(category())
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps({"git_revision": "0123abcd-dirty", "versions": {"jax": "9.9"}})
    )
    page = page_of(tmp_path, result)
    for fact in ("0123abcd-dirty", "jax 9.9", "3.87", "2.1 GFLOP", "31.4", "1024 px"):
        assert fact in page, fact
    assert "The paper's own figures" in page.replace("&#39;", "'") and "98.26" in page
    before = re.search(r"sha256 (\w+)", page)[1]
    result.config.train.epochs += 1
    (folder / "run.json").write_text("{")  # damaged: the page does without
    after = page_of(tmp_path, result)
    assert re.search(r"sha256 (\w+)", after)[1] != before
    assert "0123abcd" not in after


def test_the_facts_name_the_weights_that_training_started_from(tmp_path):
    result = run(category())
    assert "tiny_vit_5m, from random weights" in page_of(tmp_path, result)
    result.config.student.checkpoint = "demo_student"
    assert "tiny_vit_5m, from demo_student" in page_of(tmp_path, result)


def test_names_cannot_break_the_page(tmp_path):
    nasty = '<script>alert("x")</script>&'
    page = page_of(tmp_path, run(category(nasty, images=[image(f"{nasty}/0", 0.3)])))
    assert "<script>alert" not in page
    assert page.count("</script>") == 1


def test_as_many_panels_as_asked_for(tmp_path):
    result = run(category())
    for count in (0, 3, 100):
        result.config.report.gallery = count
        page = page_of(tmp_path, result)
        assert page.count('<li class="panel"') == min(count, 9)
        assert ("of 9 images, most wrong first" in page) == (count > 0)


def test_a_run_without_threshold_truth_or_cost(tmp_path):
    images = [image("good/0", 0.4, has_truth=False), image("dent/0", 0.6, has_truth=False)]
    result = run(category(calibration=None, images=images))
    result.cost = dataclasses.replace(result.cost, flops=math.nan, latency_ms=math.nan)
    page = page_of(tmp_path, result)
    assert "not known" in page and 'data-show="' not in page


def test_the_same_results_give_the_same_file(tmp_path):
    assert page_of(tmp_path, run(category())) == page_of(tmp_path, run(category()))


def test_a_large_run_stays_small(tmp_path):
    """15 categories of 60 images: panels of images as detailed as gravel, times 900."""
    size, images = 256, []
    for sample in [s for s in dataset.samples() if s.category == "gravel" and s.split == "test"][
        :6
    ]:
        picture, mask = dataset.draw_sample(sample)
        blank = image(f"{sample.defect}/{sample.index}", 0.6, size=(size, size))
        images.append(dataclasses.replace(blank, picture=picture, mask=mask > 0))
    result = run(category(images=images))
    with_panels = len(page_of(tmp_path, result))
    result.config.report.gallery = 0
    without = len(page_of(tmp_path, result))
    assert 15 * without + 900 * (with_panels - without) / len(images) < 40e6


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_missing_libraries_name_the_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"stlm_jax\[report\]"):
        write_report(tmp_path / "results" / "report.html", run(category()))
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(
    ("key", "value"), [("gallery", -1), ("thumbnail", 16), ("thumbnail", 4096)]
)
def test_settings_that_cannot_be(key, value):
    config = run(category(calibration=CALIBRATION)).config
    config.report[key] = value
    with pytest.raises(UserError, match=rf"config\.report\.{key}={value}: must be"):
        check(config)
