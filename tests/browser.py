"""A headless browser for the tests of pages."""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]


@contextlib.contextmanager
def headless():
    """The browser of this machine; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=FLAGS, headless=True)
        yield opened
        opened.close()


def check_page(browser, address, width, scheme):
    """Opens a page that must fetch nothing, log nothing and not stick out; returns it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests, messages = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(address)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert messages == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing sticks out of the page but what can be scrolled into view.
    outside = page.evaluate("""[...document.querySelectorAll("main *")].filter((e) =>
        !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + 1).length""")
    assert outside == 0
    return page


def contrast(page, selector):
    """WCAG's contrast of a text with the page's background."""
    text, background = page.evaluate(
        """(s) => [[document.querySelector(s), "color"], [document.body, "backgroundColor"]].map(
        ([element, key]) => getComputedStyle(element)[key].match(/[0-9.]+/g).slice(0, 3))""",
        selector,
    )

    def luminance(colour):
        parts = [float(part) / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lower, higher = sorted([luminance(text), luminance(background)])
    return (higher + 0.05) / (lower + 0.05)
