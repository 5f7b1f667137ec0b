"""An exported `.onnx`, run by onnxruntime."""

from pathlib import Path

import numpy as np

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.weights.description import Description
from stlm_jax.weights.file import check_format

INPUT = "image"
OUTPUTS = ("anomaly_map", "anomaly_score")


def open_session(model: str | bytes):
    """An onnxruntime session on CPU of a file's name or content."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; pip install 'stlm_jax[export]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it changes while it loads is no news
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session, images: np.ndarray) -> dict[str, np.ndarray]:
    """`map` (N, S, S) and `score` (N,), float32, of uint8 (N, S, S, 3)."""
    anomaly_map, score = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)})
    return {"map": anomaly_map, "score": score}


class OnnxModel:
    """A detector's `.onnx`, made by `conversion.to_onnx`.

    Attributes:
        metadata: what the file says of itself, text by name.
        description: category, image size, geometry and thresholds.
    """

    def __init__(self, path: str | Path):
        """Opens a file."""
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such file")
        try:
            self._session = open_session(str(path))
        except UserError:
            raise
        except Exception as error:  # onnxruntime has a dozen types for a damaged file
            raise UserError(f"{path}: onnxruntime cannot read it ({first_line(error)})") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        check_format(path, self.metadata, "a detector exported by conversion.to_onnx")
        self.description = Description.read(path, self.metadata)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """`map` (N, S, S), `score` (N,) of uint8 (N, S, S, 3); S is the image size."""
        return run(self._session, np.asarray(images))
