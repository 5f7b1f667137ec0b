"""A trained model behind HTTP says what `Detector` says of the same image."""

import dataclasses
import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from stand_in import ask, served

from stlm_jax.inference import Detector, calibration
from stlm_jax.serving.options import Options
from stlm_jax.serving.service import Service


@pytest.fixture(scope="module")
def folder(finished_run):
    """A category, whose pixel threshold is such that there are regions."""
    folder = finished_run / "run/disc"
    path = finished_run / "data/disc/test/spot/000.png"
    found = Detector.load(folder)(np.asarray(Image.open(path))[None])
    known = calibration.load(folder)
    between = float(np.quantile(found.anomaly_map, 0.8))
    calibration.store(folder, dataclasses.replace(known, pixel_threshold=between))
    return folder


@pytest.fixture(scope="module")
def port(folder):
    service = Service(Options({"disc": str(folder)}, max_batch=2), Detector.load)
    service.start()
    while not service.ready:
        assert service.failure is None
        time.sleep(0.05)
    with served(service) as found:
        yield found


@pytest.mark.parametrize("name", ["spot/000.png", "good/001.png"])
def test_the_server_says_what_the_detector_says(folder, port, name):
    path = folder.parents[1] / "data/disc/test" / name
    pixels = np.asarray(Image.open(path))
    detector = Detector.load(folder)
    expected = detector(pixels[None])

    status, _, body = ask(port, body=path.read_bytes())
    found = json.loads(body)
    assert status == 200 and found["model"] == "disc"
    assert found["score"] == float(expected.score[0])
    assert found["normalised_score"] == pytest.approx(float(expected.normalised[0]), rel=1e-9)
    assert found["verdict"] == ("defective" if expected.is_anomalous[0] else "good")
    assert found["threshold"] == detector.threshold
    assert (found["height"], found["width"]) == pixels.shape[:2]
    above = expected.anomaly_map[0] > detector.calibration.pixel_threshold
    labels, count = ndimage.label(above, np.ones((3, 3)))
    assert found["region_count"] == count and (count > 0 or "good" in name)
    for region in found["regions"]:
        x, y, width, height = region["box"]
        inside = labels[y : y + height, x : x + width]
        assert region["area"] in np.bincount(inside.ravel())[1:]
    assert sum(region["area"] for region in found["regions"]) == above.sum()

    body = ask(port, body=path.read_bytes(), Accept="application/x-stlm-map")[2]
    values = np.asarray(Image.open(io.BytesIO(body))) / 65535
    np.testing.assert_allclose(values, expected.anomaly_map[0], atol=0.5001 / 65535)
