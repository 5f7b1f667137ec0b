"""A score at the threshold, or nearer to it than float32 tells, is judged alike by every door."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from stand_in_model import png, service_of
from starlette.testclient import TestClient

from stlm_jax.cli.main import main
from stlm_jax.evaluation.error_rates import ErrorRates
from stlm_jax.evaluation.results import FALSE_ALARM, verdict
from stlm_jax.inference.detector import Detector
from stlm_jax.inference.predict import _judge
from stlm_jax.serving.app import make_app
from stlm_jax.weights.description import Calibration, Description

SIDE = 32
SCORE = np.float32(0.1)  # 0.10000000149…
EXACT = float(SCORE)


def constant(squares):
    maps = np.full((len(squares), SIDE, SIDE), SCORE)
    return {"map": maps, "score": np.full(len(squares), SCORE)}


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (EXACT, False),  # a tie is good
        (0.1, True),  # below the score, but the same number in float32
        (math.nextafter(EXACT, 0), True),
        (math.nextafter(EXACT, 1), False),
        (float(np.nextafter(SCORE, np.float32(0))), True),
        (float(np.nextafter(SCORE, np.float32(1))), False),
    ],
)
def test_every_door_decides_alike(threshold, expected, tmp_path, monkeypatch):
    known = Calibration(threshold, 0.1, 0.5, "held_out", 8)
    detector = Detector(constant, Description("disc", SIDE, calibration=known))
    found = {"Detector": bool(detector(np.zeros((1, 20, 20, 3), np.uint8)).is_anomalous[0])}

    monkeypatch.setattr("stlm_jax.prediction.model.load", lambda *_: detector)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    paths = [str(tmp_path / name) for name in ("model.safetensors", "a.png")]
    assert main(["stlm", "predict", *paths, f"--output={tmp_path / 'out'}"]) == 0
    row = json.loads((tmp_path / "out/predictions.jsonl").read_text())
    found["stlm predict"] = row["verdict"] == "defective"

    detector.calls = []  # what `service_of` asks of a stand-in
    service = service_of(detector)
    with TestClient(make_app(service)) as client:
        answer = client.post("/v1/predict", content=png(0), headers={"content-type": "image/png"})
    assert service.stop()
    found["stlm serve"] = answer.json()["verdict"] == "defective"

    found["--mode=predict"] = _judge(known, float(SCORE))["is_anomalous"]
    rates = ErrorRates(known)
    rates.add(np.full((2, 2), SCORE), None, SCORE, False)
    found["evaluation"] = rates.result()["image_false_alarm_rate"] == 1
    image = SimpleNamespace(score=SCORE, label=False)
    found["report"] = verdict(image, known) == FALSE_ALARM
    assert found == dict.fromkeys(found, expected)
