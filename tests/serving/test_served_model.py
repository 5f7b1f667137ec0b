"""A trained model behind HTTP says what `Detector` says of the same image."""

import dataclasses
import functools
import io
import json
import pathlib
import time

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from stand_in_model import ask, served

import stlm_jax
from stlm_jax.inference import Detector
from stlm_jax.serving.options import Options
from stlm_jax.serving.service import Service
from stlm_jax.weights.description import Calibration

STUDENT = pathlib.Path(stlm_jax.__file__).with_name("assets") / "demo_student.safetensors"


def picture(seed):
    """Smooth noise, (70, 90, 3) uint8, with a bright square."""
    small = np.random.default_rng(seed).integers(60, 140, (7, 9, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(small).resize((90, 70), Image.Resampling.BICUBIC))
    pixels[20:40, 50:70] = 250
    return pixels


@functools.cache
def student():
    """The shipped student, with thresholds between the scores and pixels of two pictures."""
    detector = Detector.load(STUDENT, image_size=64)
    found = [detector(picture(seed)[None]) for seed in (0, 1)]
    between = float(np.mean([x.score[0] for x in found]))
    pixel = float(np.quantile(found[0].anomaly_map, 0.9))
    known = Calibration(between, 0.01, pixel, "held_out", 9)
    detector.description = dataclasses.replace(detector.description, calibration=known)
    return detector


def check(detector, pixels, regions_at_least):
    """Serves a detector, and compares its answers of an image with what it says itself."""
    expected = detector(pixels[None])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    service = Service(Options({"real": ""}, max_batch=1), lambda path: detector)
    service.start()
    while not service.ready:
        assert service.failure is None
        time.sleep(0.02)
    with served(service) as port:
        status, _, body = ask(port, body=buffer.getvalue())
        as_png = ask(port, body=buffer.getvalue(), Accept="application/x-stlm-map")[2]
    found = json.loads(body)
    assert status == 200 and found["model"] == "real"
    assert found["score"] == float(expected.score[0])
    assert found["normalised_score"] == pytest.approx(float(expected.normalised[0]), rel=1e-9)
    assert found["verdict"] == ("defective" if expected.is_anomalous[0] else "good")
    assert found["threshold"] == detector.threshold
    assert (found["height"], found["width"]) == pixels.shape[:2]
    above = expected.anomaly_map[0] > detector.calibration.pixel_threshold
    labels, count = ndimage.label(above, np.ones((3, 3)))
    assert found["region_count"] == count >= regions_at_least
    for region in found["regions"]:
        x, y, width, height = region["box"]
        inside = labels[y : y + height, x : x + width]
        assert region["area"] in np.bincount(inside.ravel())[1:]
    assert sum(region["area"] for region in found["regions"]) == above.sum()
    values = np.asarray(Image.open(io.BytesIO(as_png))) / 65535
    np.testing.assert_allclose(values, expected.anomaly_map[0], atol=0.5001 / 65535)
    return found


def test_a_finished_run(finished_run):
    path = finished_run / "data/disc/test/spot/000.png"
    check(Detector.load(finished_run / "run/disc"), np.asarray(Image.open(path)), 0)


def test_a_model_that_tells_images_apart():
    found = [check(student(), picture(seed), 1 - seed) for seed in (0, 1)]
    assert {x["verdict"] for x in found} == {"good", "defective"}
    assert len({x["score"] for x in found}) == 2 and 0 < found[0]["score"] < 1
