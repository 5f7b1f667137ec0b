"""`calibration.json`: stored whole, read back to the last bit, or named where it is damaged."""

import json
import math

import numpy as np
import pytest

from stlm_jax.inference import calibration
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration

SOME = Calibration(0.1, 1 / 3, 0.7, "held_out", 8)


def test_the_normalised_score():
    scores = np.float32([-5, 0.1, 0.4, 1e6])
    expected = [1 / (1 + math.exp(3 * (0.1 - float(score)))) for score in scores]
    np.testing.assert_allclose(SOME.normalise(scores), expected, rtol=1e-12)
    assert SOME.normalise(0.1) == 0.5
    threshold = float(np.float32(0.3))
    above = np.nextafter(np.float32(threshold), np.float32(1))
    assert Calibration(threshold, 1.0, 0, "training", 1).normalise(above) > 0.5


def test_it_is_stored_whole_and_read_back(tmp_path):
    assert calibration.load(tmp_path) is None
    calibration.store(tmp_path, SOME)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    assert calibration.load(tmp_path) == SOME  # to the last bit
    assert json.loads((tmp_path / "calibration.json").read_text())["source"] == "held_out"
    calibration.forget(tmp_path)
    calibration.forget(tmp_path)
    assert calibration.load(tmp_path) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", "high"), ("normaliser", 0), ("source", "guess"), ("images", None), ("x", 1),
     ("threshold", math.nan)],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, key, value):
    calibration.store(tmp_path, SOME)
    path = tmp_path / "calibration.json"
    content = json.loads(path.read_text())
    del content["images"]
    path.write_text(json.dumps(content | ({} if value is None else {key: value, "images": 8})))
    with pytest.raises(UserError, match=r"calibration\.json: not a calibration .*delete it"):
        calibration.load(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="not a calibration"):
        calibration.load(tmp_path)
