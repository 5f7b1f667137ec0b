"""A detector that sees red in place of anomalies, a folder for its model, and the command."""

import json
import pathlib
import time

import numpy as np
from PIL import Image

from stlm_jax.commands.predict import main
from stlm_jax.inference.detector import Detector
from stlm_jax.inference.predict_views import require_finite_maps
from stlm_jax.weights.description import Calibration, Description

SIZE = 64
QUICK = ("--settle=0.08", "--poll=0.02", "--quiet")  # of a watched folder
KNOWN = Calibration(0.3, 0.1, 0.25, "held_out", 8)


def red(squares):
    """The red channel as the map; where it is 13 the map is not a number."""
    maps = squares[..., 0].astype(np.float32) / 255
    maps[squares[..., 0] == 13] = np.nan
    return {"map": maps, "score": np.sort(maps.reshape(len(maps), -1))[:, -10:].mean(1)}


def refusing(squares):
    """As `red`, but like an exported ONNX model it refuses all images of a call."""
    found = red(squares)
    require_finite_maps(found, "image of the call")
    return found


class Slow:
    """Takes so many seconds for a call, and counts the images that it is shown."""

    def __init__(self, seconds=0.0, infer=red):
        self.seconds, self.infer, self.seen = seconds, infer, 0

    def __call__(self, squares):
        time.sleep(self.seconds)
        self.seen += len(squares)
        return self.infer(squares)


def use(patch, infer=red, known=KNOWN):
    """Has every model be `infer`; returns it."""
    description = Description("disc", SIZE, "squash", 10, known)
    patch("stlm_jax.prediction.model.load", lambda *_: Detector(infer, description))
    return infer


def model_file(folder: pathlib.Path, content=b"weights") -> pathlib.Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def predict(model, *arguments):
    return main(["predict", str(model), *map(str, arguments)])


def grey(path, value, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path, "PNG")


def rows_of(output):
    text = (pathlib.Path(output) / "predictions.jsonl").read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def by_path(output, folder):
    rows = rows_of(output)
    found = {row["path"].removeprefix(f"{folder}/"): row for row in rows}
    assert len(found) == len(rows)
    return found


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def count(folder):
    return len(list(folder.glob("*.png"))) if folder.is_dir() else 0
