"""What is answered of images, against values that are worked out by hand or by other code."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from stand_in_model import SIDE, THRESHOLD, StandIn, ask, form, png, served, service_of

from stlm_jax.serving.accept import wanted
from stlm_jax.serving.answers import KINDS

MAP = "application/x-stlm-map"


@pytest.fixture(scope="module")
def port():
    with served(service_of(StandIn(), StandIn(calibrated=False, category=""))) as found:
        yield found


@pytest.fixture(scope="module")
def spotted():
    """Of the size that the stand-in sees: a rectangle and, at its corner, a pixel; a far one."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[4:9, 10:22, 0] = 255
    pixels[9, 22, 0] = 200
    pixels[30, 2, 0] = 180
    return pixels


def test_numbers_and_regions_are_those_of_the_map(port, spotted):
    status, headers, body = ask(port, body=png(spotted))
    found = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    score = (60 * 255 + 200 + 180) / 255 / SIDE**2
    assert found["score"] == pytest.approx(score, rel=1e-6)
    assert found["normalised_score"] == pytest.approx(expit((score - 0.5) / 0.1), rel=1e-5)
    assert (found["verdict"], found["threshold"], found["model"]) == ("good", 0.5, "default")
    assert (found["width"], found["height"]) == (SIDE, SIDE)
    assert [(region["box"], region["area"]) for region in found["regions"]] == [
        ([10, 4, 13, 6], 61),
        ([2, 30, 1, 1], 1),
    ]
    assert found["region_count"] == 2 and found["ms"] > 0
    assert json.loads(ask(port, body=png(250))[2])["verdict"] == "defective"


def test_regions_are_in_the_images_own_pixels(port, spotted):
    large = np.asarray(Image.fromarray(spotted).resize((4 * SIDE, 3 * SIDE), 0))
    found = json.loads(ask(port, body=png(large))[2])
    left, top, width, height = found["regions"][0]["box"]
    assert (found["width"], found["height"]) == (128, 96)
    assert np.abs(np.subtract((left, top, width, height), (40, 12, 52, 18))).max() <= 4


def test_the_map_is_a_png_of_sixteen_bits(port, spotted):
    status, headers, body = ask(port, body=png(spotted), Accept=MAP)
    assert (status, headers["content-type"]) == (200, MAP)
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "PNG" and image.mode == "I;16"
        values = np.asarray(image)
    np.testing.assert_array_equal(values, np.rint(spotted[..., 0] / 255 * 65535))
    told = json.loads(headers["STLM-Result"])
    assert told["region_count"] == 2 and "regions" not in told


def test_the_overlay_is_of_the_images_size_or_smaller(port):
    picture = np.full((60, 90, 3), 40, np.uint8)
    picture[20:40, 30:60] = 250
    body = png(picture)
    for path, size in (("", (90, 60)), ("?side=30", (30, 20)), ("?side=900", (90, 60))):
        status, headers, found = ask(port, f"/v1/predict{path}", body, Accept="image/png")
        with Image.open(io.BytesIO(found)) as image:
            assert (status, image.size, image.mode) == (200, size, "RGB")
            hot = np.asarray(image)[size[1] // 2, size[0] // 2].astype(int)
            cold = np.asarray(image)[1, 1]
        assert hot.min() < hot.max() - 40  # in the colours of the map, where it is high
        assert json.loads(headers["STLM-Result"])["width"] == 90
        assert np.ptp(cold) < np.ptp(hot)


def test_without_thresholds_nothing_is_judged(port):
    found = json.loads(ask(port, "/v1/predict?model=m1", png(250))[2])
    assert found["score"] == pytest.approx(250 / 255, rel=1e-6)
    for name in ("verdict", "threshold", "normalised_score", "regions", "pixel_threshold"):
        assert found[name] is None
    assert ask(port, "/v1/predict?model=m1", png(250), Accept="image/png")[0] == 200


def test_a_form_and_a_body_say_the_same(port):
    body, kind = form([("a.png", png(99))], "image")
    by_form = json.loads(ask(port, body=body, Content_Type=kind)[2])
    by_body = json.loads(ask(port, body=png(99))[2])
    assert {**by_form, "ms": 0} == {**by_body, "ms": 0}


def test_one_bad_image_does_not_fail_a_batch(port):
    images = [(f"{i}.png", png(20 * i)) for i in range(11)]
    images[3] = ("three.png", b"no image")
    images[5] = ("five.png", png(50)[:60])
    images[7] = ("seven.png", png(13))  # not finite
    images[8] = ("eight.png", png(14))  # the model raises
    body, kind = form(images)
    status, _, answer = ask(port, "/v1/predict/batch", body, Content_Type=kind)
    found = json.loads(answer)
    assert status == 200 and [item["file"] for item in found] == [name for name, _ in images]
    for i, item in enumerate(found):
        if i in (3, 5, 7, 8):
            assert item["result"] is None
        else:
            assert item["error"] is None
            assert item["result"]["score"] == pytest.approx(20 * i / 255, rel=1e-6, abs=1e-9)
    assert "none of PNG" in found[3]["error"] and "five.png" in found[5]["error"]
    assert "not finite" in found[7]["error"] and "ValueError" in found[8]["error"]


def test_a_score_that_is_not_finite_is_a_clear_error(port):
    for accept in ("application/json", "image/png", MAP):
        status, headers, body = ask(port, body=png(13), Accept=accept)
        assert (status, headers["content-type"]) == (500, "application/json")
        assert "not finite" in json.loads(body)["error"]
    status, _, body = ask(port, body=png(14))
    assert status == 500 and "ValueError" in json.loads(body)["error"]
    assert ask(port, body=png(15))[0] == 200


def test_models_are_listed(port):
    found = json.loads(ask(port, "/v1/models")[2])
    assert [m["name"] for m in found["models"]] == ["default", "m1"]
    assert found["models"][0]["threshold"] == THRESHOLD
    assert found["models"][1]["threshold"] is None
    assert found["max_pixels"] == 50_000_000 and found["max_upload_bytes"] == 20_000_000


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("", 0), ("*/*", 0), ("image/*", 1), ("image/png", 1), (MAP, 2), ("text/html", None),
        ("text/html, */*;q=0.1", 0), ("application/json;q=0.2, image/png;q=0.9", 1),
        ("IMAGE/PNG", 1), ("*/*, application/json;q=0", 1), ("image/png;q=0", None), (",;,", None),
        ("image/png;q=x", None), (f"{MAP};q=0.5,*/*;q=0.4", 2), ("application/*", 0),
    ],
)  # fmt: skip
def test_accept(accept, expected):
    assert wanted(accept, KINDS) == (None if expected is None else KINDS[expected])


def test_what_is_not_offered_is_406(port):
    status, _, body = ask(port, body=png(1), Accept="text/html")
    assert status == 406 and "image/png" in json.loads(body)["error"]
