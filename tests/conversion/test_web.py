"""The folder for browsers, in a real browser: the same scores as Flax, without a server."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
from browser import contrast, headless
from photographs import write_photographs, write_unjudged
from PIL import Image
from small_student import evaluated

from conversion import to_web
from conversion.web import runtime
from stlm_jax.data.geometry import to_square
from stlm_jax.data.images import open_rgb
from stlm_jax.inference import Detector
from stlm_jax.runtime.errors import UserError

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
pytest.importorskip("jax2onnx")

from conversion.onnx import export as onnx_export  # noqa: E402

SIDE = 64
MINUTE = 60_000  # ms: what is waited for at most
FINISHED = "#results:not(:has([data-state=waiting]))"


@pytest.fixture
def student(traced):
    return traced[0]


@pytest.fixture(scope="module")
def export(traced, tmp_path_factory):
    """Exports by the command, with what npm brings; the graph is traced once."""
    try:
        files = runtime.runtime_files()
    except UserError as error:
        pytest.skip(f"onnxruntime-web is not here: {error}")
    place = tmp_path_factory.mktemp("web")
    dist = place / "package" / "dist"
    dist.mkdir(parents=True)
    for name, (source, _) in runtime.FILES.items():
        (dist / source).write_bytes(files[name])
    student, content = traced

    def run(name, *options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(to_web, "load_trained", lambda *arguments: student)
            patch.setattr(onnx_export, "build_graph", lambda trained: graph_of(content))
            command = ["run", str(place / name), f"--onnxruntime_web={place / 'package'}", *options]
            assert to_web.main(command) == 0
        return place / name

    return run


@pytest.fixture(scope="module")
def folder(export):
    return export("page", "--no-verify")


@pytest.fixture(scope="module")
def browser():
    with headless() as opened:
        yield opened


def graph_of(content):
    return ir.from_proto(onnx.load_model_from_string(content))


@contextlib.contextmanager
def served(folder):
    """A folder's address, as `python -m http.server` has one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextlib.contextmanager
def opened(browser, address, width=1200, **options):
    """A page that must ask for nothing but the folder's files and log nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    requests, messages = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(address)
    yield page
    assert all(url.startswith((address, "blob:", "data:")) for url in requests)
    assert messages == []
    context.close()


def look_at(page, paths):
    """Chooses files; the cards by name, once all are finished."""
    page.wait_for_selector("body[data-ready]", timeout=MINUTE)
    page.set_input_files("#files", [str(path) for path in paths])
    page.wait_for_selector(FINISHED, timeout=MINUTE)
    return {
        card.query_selector(".name").inner_text(): card for card in page.query_selector_all(".card")
    }


def changed(folder, place, **values):
    """A copy of an export with other values in its description."""
    shutil.copytree(folder, place)
    path = place / "description.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return place


def detector(student, **changes):
    def flax(images):
        return dict(zip(("map", "score"), evaluated(student, images), strict=True))

    return Detector(flax, dataclasses.replace(student.description, **changes))


@pytest.mark.parametrize("geometry", ["squash", "pad"])
def test_scores_are_those_of_flax(student, folder, browser, tmp_path, geometry):
    (tmp_path / "in").mkdir()
    paths = write_photographs(tmp_path / "in")
    flax = detector(student, geometry=geometry)
    wanted = {path.name: flax(np.asarray(open_rgb(path))[None]) for path in paths}
    with served(changed(folder, tmp_path / "page", geometry=geometry)) as address:
        with opened(browser, address) as page:
            cards = look_at(page, paths)
            found = {name: float(card.get_attribute("data-score")) for name, card in cards.items()}
            verdicts = {name: card.get_attribute("data-verdict") for name, card in cards.items()}
            times = [float(card.get_attribute("data-model")) for card in cards.values()]
    errors = {name: abs(found[name] - wanted[name].score[0]) for name in wanted}
    print(
        f"{geometry}: {max(errors.values()):.1e} at most, {np.median(times):.0f} ms a model's run"
    )
    assert len(found) == len(paths)
    for name, error in errors.items():
        assert error <= (1e-3 if name.endswith(".jpg") else 1e-5), (name, errors)
    for name, verdict in verdicts.items():
        assert verdict == ("anomalous" if wanted[name].is_anomalous[0] else "good")
    assert set(verdicts.values()) == {"anomalous", "good"}
    # A canvas resizes without antialiasing, or with another: that would be noticed.
    if geometry == "squash":
        coarse = [open_rgb(path).resize((SIDE, SIDE), Image.Resampling.NEAREST) for path in paths]
        others = np.array([flax(np.asarray(image)[None]).score[0] for image in coarse])
        right = np.concatenate([wanted[path.name].score for path in paths])
        assert np.abs(others - right).max() > 0.01


def test_float16_runs_and_is_half_as_large(student, folder, export, browser, tmp_path, capsys):
    paths = write_photographs(tmp_path)[:4]
    small = export("half", "--precision=float16", "--no-verify")
    said = capsys.readouterr().err
    assert f"wrote {small}/ (" in said
    assert "MB, float16): model.onnx 3.3 MB, ort/ort.wasm 14.2 MB, " in said
    sizes = [(place / "model.onnx").stat().st_size for place in (small, folder)]
    assert sizes[0] < 0.6 * sizes[1]
    flax = detector(student)
    with served(small) as address, opened(browser, address) as page:
        for name, card in look_at(page, paths).items():
            wanted = flax(np.asarray(open_rgb(tmp_path / name))[None]).score[0]
            assert 0 < abs(float(card.get_attribute("data-score")) - wanted) <= 1e-3
        assert "float16" in page.inner_text("#about")


def test_the_square_is_pillows_bit_for_bit(folder, browser):
    script = """async ([pixels, width, height, options]) => {
        const { toSquare } = await import("./resize.js");
        const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
        const part = (left, top, w, h) => {
            const out = new Uint8Array(w * h * 4);
            for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) for (let c = 0; c < 3; c++)
                out[(y * w + x) * 4 + c] = bytes[((top + y) * width + left + x) * 3 + c];
            return out;
        };
        const { square, box } = toSquare(width, height, part, options);
        return [btoa(String.fromCharCode(...square)), Object.values(box)];
    }"""
    version = int(Image.__version__.split(".")[0])
    rng = np.random.default_rng(0)
    sizes = [
        (900, 350),
        (350, 900),
        (64, 64),
        (40, 31),
        (64, 300),
        (500, 3),
        (3, 500),
        (1, 1),
        (127, 63),
    ]
    with served(folder) as address, opened(browser, address) as page:
        for height, width in sizes:
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            text = base64.b64encode(pixels.tobytes()).decode()
            for geometry in ("squash", "pad"):
                wanted, box = to_square(Image.fromarray(pixels), SIDE, geometry)
                options = dict(side=SIDE, geometry=geometry, pillow=version, strip=5000)
                found, place = page.evaluate(script, [text, width, height, options])
                assert base64.b64decode(found) == wanted.tobytes(), (height, width, geometry)
                assert place == [box.left, box.top, box.right - box.left, box.bottom - box.top]
        page.wait_for_selector("body[data-ready]", timeout=MINUTE)


def test_what_browsers_read_otherwise_is_not_judged(folder, browser, tmp_path):
    said = write_unjudged(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no image" * 9)
    (tmp_path / "empty.png").write_bytes(b"")
    with served(folder) as address, opened(browser, address) as page:
        cards = look_at(page, sorted(tmp_path.iterdir()))
        for name, words in said.items():
            assert cards[name].get_attribute("data-verdict") == "not judged"
            assert words in cards[name].query_selector(".note").inner_text()
        for name in ("broken.png", "empty.png"):
            assert cards[name].get_attribute("data-verdict") == "unreadable"
            assert "cannot read it" in cards[name].query_selector(".note").inner_text()
        count = page.inner_text("#count")
        assert count == "5 images · 3 not judged · 2 unreadable"


def test_a_score_that_is_not_finite_is_an_error(folder, browser, tmp_path):
    helper, kind = onnx.helper, onnx.TensorProto
    shapes = {
        "image": (kind.UINT8, ["N", SIDE, SIDE, 3]),
        "anomaly_map": (kind.FLOAT, ["N", SIDE, SIDE]),
    }
    shapes["anomaly_score"] = (kind.FLOAT, ["N"])
    image, *outputs = [helper.make_tensor_value_info(name, *x) for name, x in shapes.items()]
    constants = {"last": np.int64([3]), "sides": np.int64([1, 2]), "nan": np.float32(np.nan)}
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=kind.FLOAT),
        helper.make_node("ReduceMean", ["real", "last"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nan"], ["anomaly_map"]),
        helper.make_node("ReduceMean", ["anomaly_map", "sides"], ["anomaly_score"], keepdims=0),
    ]
    weights = [onnx.numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "nan", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content = model.SerializeToString()
    files = json.loads((folder / "description.json").read_text())["files"]
    page_folder = changed(
        folder,
        tmp_path / "page",
        files={**files, "model.onnx": len(content)},
        file_sha256=hashlib.sha256(content).hexdigest(),
    )
    (page_folder / "model.onnx").write_bytes(content)
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 30), "grey").save(path)
    with served(page_folder) as address, opened(browser, address) as page:
        card = look_at(page, [path])["a.png"]
        assert card.get_attribute("data-verdict") == "unreadable"
        assert "is not finite" in card.inner_text() and "good" not in card.inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_the_page_on_a_phone_and_a_desk(folder, browser, tmp_path, width, scheme):
    paths = write_photographs(tmp_path)[:3]
    with served(folder) as address, opened(browser, address, width, color_scheme=scheme) as page:
        cards = look_at(page, paths)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in ("#facts", ".more", "footer"):
            assert contrast(page, selector) >= 4.5, selector
        for button in page.query_selector_all(".button"):
            assert button.bounding_box()["height"] >= 39
        assert page.get_attribute("#camera", "capture") == "environment"
        (card, *_) = cards.values()
        picture = card.query_selector("img")
        with_map = picture.get_attribute("src")
        page.uncheck("#overlay")
        assert picture.get_attribute("src") != with_map
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
        page.click("#clear")
        assert not page.query_selector_all(".card")


def test_the_threshold_moves_and_comes_back(student, folder, browser, tmp_path):
    paths = write_photographs(tmp_path)[:4]
    with served(folder) as address, opened(browser, address) as page:
        cards = look_at(page, paths)

        def verdicts():
            return [card.get_attribute("data-verdict") for card in cards.values()]

        stored = verdicts()
        assert page.is_disabled("#stored")
        page.fill("#threshold", "0.99")
        assert set(verdicts()) == {"good"} and page.inner_text("#count") == "4 images · 4 good"
        page.press("#slider", "Home")
        assert set(verdicts()) == {"anomalous"} and float(page.input_value("#threshold")) < 0.01
        page.fill("#threshold", "")
        assert set(verdicts()) == {"not judged"}
        page.click("#stored")
        assert verdicts() == stored and float(page.input_value("#threshold")) == 0.5
        card = cards[paths[0].name]
        score = float(card.get_attribute("data-score"))
        normalised = float(student.calibration.normalise(score))
        assert f"normalised {normalised:.3f}" in card.inner_text()


def test_a_model_without_thresholds_judges_nothing(folder, browser, tmp_path):
    page_folder = changed(
        folder, tmp_path / "page", threshold=None, pixel_threshold=None, category=""
    )
    (tmp_path / "in").mkdir()
    paths = write_photographs(tmp_path / "in")[:1]
    with served(page_folder) as address, opened(browser, address) as page:
        (card,) = look_at(page, paths).values()
        assert card.get_attribute("data-verdict") == "not judged"
        assert "No threshold is stored" in page.inner_text("#facts")
        page.fill("#threshold", "0.01")
        assert card.get_attribute("data-verdict") == "anomalous"


def test_it_goes_on_without_the_network_and_runs_no_foreign_script(folder, browser, tmp_path):
    paths = write_photographs(tmp_path)[:2]
    with served(folder) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=MINUTE)
    context.set_offline(True)  # and the server is gone
    cards = look_at(page, paths)
    assert all(card.get_attribute("data-state") == "done" for card in cards.values())
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.body.dataset.foreign = 1";
        document.body.append(script);
        const image = "<img src=x onerror='document.body.dataset.foreign = 1'>";
        document.body.insertAdjacentHTML("beforeend", image);
        const button = document.createElement("button");
        button.setAttribute("onclick", "document.body.dataset.foreign = 1");
        button.click();
    }""")
    assert page.get_attribute("body", "data-foreign") is None
    context.close()


def test_a_folder_that_is_not_whole_says_so(folder, browser, tmp_path):
    page_folder = changed(folder, tmp_path / "page")
    content = bytearray((page_folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (page_folder / "model.onnx").write_bytes(content)
    with served(page_folder) as address, opened(browser, address) as page:
        page.wait_for_selector("#status.failed", timeout=MINUTE)
        assert "model.onnx is damaged or of another export" in page.inner_text("#status")
        assert page.is_hidden("#controls")
    (page_folder / "model.onnx").write_bytes(content[:-100])
    with served(page_folder) as address, opened(browser, address) as page:
        page.wait_for_selector("#status.failed", timeout=MINUTE)
        assert "model.onnx: came in part" in page.inner_text("#status")


def test_a_page_opened_as_a_file_says_what_to_do(folder, browser):
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    page.wait_for_timeout(300)
    said = page.inner_text("#status")
    assert "opened as a file" in said and "python -m http.server" in said
    assert page.is_hidden("#controls")
    page.close()
