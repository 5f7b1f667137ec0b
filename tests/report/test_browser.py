"""The report in a real browser: nothing fetched, nothing logged, sorting, filters, layout."""

import math
from dataclasses import replace

import pytest
from browser import check_page, contrast, headless
from small_results import MOST_WRONG_FIRST, category, image, run

from stlm_jax.report import write_report

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def browser():
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A category of good images only, another, and one with lower metrics and no AUPRO."""
    brick = category("brick")
    lower = {name: value - 0.1 for name, value in brick.result.values.items()}
    result = replace(brick.result, values=lower | {"aupro": math.nan})
    tile = category("tile", result=result)
    good = category("a long name of a category", images=[image("good/0", 0.2)])
    path = tmp_path_factory.mktemp("work") / "run" / "results" / "report.html"
    return write_report(path, run(good, brick, tile)).as_uri()


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture
def page(browser, address):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(address)
    yield opened
    opened.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_opens_without_requests_errors_or_overflow(browser, address, scheme, width):
    page = check_page(browser, address, width, scheme)
    broken = "[...document.images].filter((i) => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert contrast(page, "h1") > 7 and contrast(page, ".subtitle") > 4.5
    page.close()


@pytest.mark.parametrize("width", [1200, 1280, 1440, 1920])
def test_no_table_of_the_run_is_cut_off(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(address)
    captions = ["Metrics, %", "Calibration, and how often it is wrong"]
    for caption in captions:
        region = page.get_by_role("region", name=caption)
        assert region.evaluate("(e) => e.scrollWidth - e.clientWidth") <= 0, caption
    page.close()


def column(page, index):
    """The row headings of the first table in the order shown, and the sort of a column."""
    table = page.locator("table").first
    names = table.locator("tbody th, tfoot th").all_inner_texts()
    return names, table.locator("th[aria-sort]").nth(index).get_attribute("aria-sort")


def test_a_table_is_sorted_by_any_column_the_mean_last_and_the_undefined_after_all(page):
    brick, tile, good = "brick", "tile", "a long name of a category"
    buttons = page.locator("table").first.locator("thead button")
    as_written = [good, brick, tile, "mean"]
    assert column(page, 0) == (as_written, "none")
    buttons.nth(1).click()  # image AUROC: tile's is lower, the first category has none
    assert column(page, 1) == ([brick, tile, good, "mean"], "descending")
    buttons.nth(1).click()
    assert column(page, 1) == ([tile, brick, good, "mean"], "ascending")
    buttons.nth(0).focus()
    page.keyboard.press("Enter")
    assert column(page, 0) == ([good, brick, tile, "mean"], "ascending")
    assert column(page, 1)[1] == "none"
    buttons.nth(4).click()  # AUPRO: only brick has one
    assert column(page, 4) == ([brick, good, tile, "mean"], "descending")
    buttons.nth(4).click()
    assert column(page, 4) == ([brick, good, tile, "mean"], "ascending")
    buttons.nth(4).click()
    assert column(page, 4) == (as_written, "none")


def shown(page, section="#category-2"):
    names = page.locator(f"{section} .panel:visible .name").all_text_contents()
    return [name.replace(" / ", "/") for name in names]


def test_the_gallery_is_ordered_and_filtered(page):
    gallery = page.locator("#category-2 .gallery")
    assert shown(page)[:3] == MOST_WRONG_FIRST and len(shown(page)) == 9
    gallery.get_by_role("button", name="miss 2").click()
    assert shown(page) == ["crack/001", "stain/001"]
    assert gallery.get_by_role("button", name="miss 2").get_attribute("aria-pressed") == "true"
    gallery.get_by_label("defect type").select_option("stain")
    assert shown(page) == ["stain/001"]
    assert "1 of these 9 panels" in gallery.locator("output").inner_text()
    gallery.get_by_role("button", name="false alarm 1").click()
    assert shown(page) == [] and gallery.get_by_text("No image of this kind.").is_visible()
    gallery.get_by_label("defect type").select_option("")
    assert shown(page) == ["good/001"]
    gallery.get_by_role("button", name="all 9").click()
    assert len(shown(page)) == 9 and len(shown(page, "#category-3")) == 9


def test_a_panel_is_enlarged_and_left_by_keyboard(page):
    page.locator("#category-2").get_by_role("button", name="miss 2").click()
    page.get_by_role("button", name="enlarge crack/001").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.locator("img").count() == 4
    assert dialog.locator(".name").inner_text() == "crack / 001"
    page.keyboard.press("ArrowRight")  # past the false alarm, which the filter hides
    assert dialog.locator(".name").inner_text() == "stain / 001"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert dialog.locator(".name").inner_text() == "crack / 001"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_missing_value_tells_its_reason_to_the_keyboard(page):
    dash = page.locator("table .undefined").first
    dash.focus()
    assert page.locator(".reason").inner_text() == dash.get_attribute("title") != ""
    page.locator("#category-3 select").focus()
    assert not page.locator(".reason").is_visible()


def test_every_picture_has_a_text_and_every_control_a_name(page):
    nameless = page.evaluate("""[...document.querySelectorAll("img, button, select, [role=img]")]
        .filter((e) => !(e.alt || e.ariaLabel || e.labels?.length && e.labels[0].textContent.trim()
            || e.textContent.trim())).length""")
    assert nameless == 0
    assert (
        page.evaluate("""[...document.querySelectorAll("[id]")].map((e) => e.id)
        .filter((id, i, all) => all.indexOf(id) !== i)""")
        == []
    )
    assert page.locator("thead th[scope]").count() == page.locator("thead th").count()
