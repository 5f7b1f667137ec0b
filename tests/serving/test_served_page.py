"""The page in a real browser: uploads, verdicts, the slider, the token, a phone's width."""

import pytest
from browser import contrast, headless
from stand_in_model import StandIn, png, served, service_of

VALUES = (20, 100, 150, 240)  # of red; scores are these over 255, and the threshold is at 0.5
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser():
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def port():
    models = StandIn(), StandIn(calibrated=False, category="")
    with served(service_of(*models, max_upload_mb=0.02)) as found:
        yield found


def images(values=VALUES):
    return [dict(name=f"{v}.png", mimeType="image/png", buffer=png(v)) for v in values]


class Page:
    """A page of the server, of which all requests and messages are kept."""

    def __init__(self, browser, port, width=DESK, scheme="light", ready=True):
        context = browser.new_context(
            viewport={"width": width, "height": 850}, color_scheme=scheme, has_touch=width == PHONE
        )
        self.page = context.new_page()
        self.requests, self.messages = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.address = f"http://127.0.0.1:{port}/"
        self.page.goto(self.address)
        if ready:
            self.page.wait_for_selector("#state:has-text('sees')")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.context.close()

    def add(self, files, field="#files"):
        before = self.page.locator(".card .wait[hidden]").count()
        self.page.set_input_files(field, files)
        self.page.wait_for_selector(
            f":nth-match(.card .wait[hidden], {before + len(files)})", state="attached"
        )

    def verdicts(self):
        found = zip(self.texts(".card .name"), self.texts(".card .badge"), strict=True)
        return {name.removesuffix(".png"): badge for name, badge in found}

    def texts(self, selector):
        return self.page.locator(selector).all_text_contents()

    def slide(self, value):
        self.page.locator("#threshold").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value
        )


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_images_are_looked_at(browser, port, width, scheme):
    with Page(browser, port, width, scheme) as opened:
        page = opened.page
        opened.add(images())
        assert opened.verdicts() == {
            "20": "good", "100": "good", "150": "defective", "240": "defective",
        }  # fmt: skip
        assert opened.texts("#count, #defective, #good") == ["4", "2", "2"]
        assert opened.texts(".card .score b") == ["0.9412", "0.5882", "0.3922", "0.07843"]
        # Pictures are the server's overlays, in their own size.
        widths = "[...document.querySelectorAll('.card img')].map((image) => image.naturalWidth)"
        assert page.evaluate(widths) == [40] * 4
        # Nothing is fetched from elsewhere, said in the console, or sticks out.
        own = (opened.address, f"blob:{opened.address}", "data:")
        assert all(url.startswith(own) for url in opened.requests) and opened.messages == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = """[...document.querySelectorAll("main *")].filter((e) =>
            e.getBoundingClientRect().right > innerWidth + 1).length"""
        assert page.evaluate(outside) == 0
        assert contrast(page, "h1") > 7 and contrast(page, ".subtitle") > 4.5
        for selector in (".card .score", ".card .name", "#least", "#good", "#defective"):
            assert contrast(page, selector) > 4
        for selector, least in ((".way.primary", 40), ("#threshold", 24)):  # what a thumb must hit
            assert page.locator(selector).bounding_box()["height"] >= least


def test_the_slider_judges_anew_and_goes_back(browser, port):
    with Page(browser, port) as opened:
        opened.add(images())
        asked = len(opened.requests)
        opened.slide(0.2)
        assert opened.verdicts() == {
            "20": "good", "100": "defective", "150": "defective", "240": "defective",
        }  # fmt: skip
        assert opened.texts("#value") == ["0.2"] and opened.texts("#defective") == ["3"]
        assert opened.page.locator("#dots .defective").count() == 3
        opened.slide(0.95)
        assert set(opened.verdicts().values()) == {"good"}
        opened.page.click("#reset")
        assert opened.texts("#value") == ["0.5"] and opened.texts("#defective") == ["2"]
        assert len(opened.requests) == asked  # all of it in the browser


def test_the_slider_by_keyboard(browser, port):
    with Page(browser, port) as opened:
        opened.add(images())
        opened.page.focus("#threshold")
        opened.page.keyboard.press("End")
        assert set(opened.verdicts().values()) == {"good"}


def test_the_gallery_filters_enlarges_and_clears(browser, port):
    with Page(browser, port) as opened:
        page = opened.page
        opened.add(images())
        page.click("[data-show=defective]")
        assert page.locator(".card:visible .name").all_text_contents() == ["240.png", "150.png"]
        page.click("[data-show='']")
        page.click(".card .picture")
        large = page.locator("#large img")
        assert large.is_visible() and "240.png" in page.inner_text("#what")
        overlay = large.get_attribute("src")
        page.click("#swap")
        assert large.get_attribute("src") != overlay and overlay.startswith("blob:")
        page.keyboard.press("Escape")
        assert not large.is_visible()
        page.click("#clear")
        assert page.locator(".card").count() == 0 and not page.is_visible("#judging")
        assert opened.messages == []


def test_the_camera_and_dropped_files(browser, port):
    with Page(browser, port, PHONE) as opened:
        camera = opened.page.locator("#camera")
        assert camera.get_attribute("capture") == "environment"
        assert camera.get_attribute("accept") == "image/*"
        opened.add(images([7]), "#camera")
        opened.page.evaluate(
            """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            }""",
            list(png(200)),
        )
        opened.page.wait_for_selector(":nth-match(.card .wait[hidden], 2)", state="attached")
        assert opened.verdicts() == {"7": "good", "dropped": "defective"}


def test_what_is_refused_is_said_at_its_place(browser, port):
    with Page(browser, port) as opened:
        files = [
            dict(name="<img src=x onerror=alert(1)>.png", mimeType="image/png", buffer=b"no image"),
            dict(name="large.png", mimeType="image/png", buffer=bytes(30_000)),
            dict(name="nan.png", mimeType="image/png", buffer=png(13)),
        ]
        opened.page.set_input_files("#files", files)
        opened.page.wait_for_selector(":nth-match(.card.failed, 3)")
        said = opened.texts(".card .wait")
        assert "not finite" in said[0] and "larger than 0" in said[1] and "none of PNG" in said[2]
        assert opened.texts(".card .badge") == ["", "", ""]  # not one of them is called good
        assert opened.texts(".card .name")[2] == files[0]["name"]
        opened.add(images([20]))
        assert opened.verdicts()["20"] == "good"


def test_a_model_without_thresholds(browser, port):
    with Page(browser, port) as opened:
        opened.page.select_option("#model", "m1")
        opened.add(images())
        assert set(opened.verdicts().values()) == {"not judged"}
        assert opened.texts("#good") == ["–"] and "no threshold" in opened.page.inner_text("#state")
        opened.slide(0.2)
        assert sorted(opened.verdicts().values()) == ["defective"] * 3 + ["good"]


def test_a_token_is_asked_for(browser):
    with served(service_of(StandIn()), token="s3cret") as port:
        with Page(browser, port, ready=False) as opened:
            page = opened.page
            page.wait_for_selector("#login:not([hidden])")
            page.set_input_files("#files", images([200]))
            for token, answer in (("wrong", "another"), ("s3cret", "sees")):
                page.fill("#token", token)
                page.click("#login button")
                page.wait_for_selector(f"#state:has-text('{answer}')")
            page.wait_for_selector(".card .wait[hidden]", state="attached")
            assert opened.verdicts() == {"200": "defective"}
            assert not page.is_visible("#login")
            assert all("s3cret" not in url for url in opened.requests)


def test_a_full_queue_is_waited_for(browser):
    model = StandIn(delay=0.4)
    with served(service_of(model, queue=1, max_batch=1)) as port, Page(browser, port) as opened:
        opened.add(images())
        assert set(opened.verdicts().values()) == {"good", "defective"}
