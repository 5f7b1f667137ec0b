"""An exported `.onnx`, run by onnxruntime."""

from pathlib import Path

import numpy as np

from conversion.inference_function import INPUT, OUTPUTS
from stlm_jax.description import Description
from stlm_jax.errors import UserError
from stlm_jax.weights_file import FORMAT


def open_session(model: str | bytes):
    """An onnxruntime session on CPU of a file's name or content.

    Raises:
      UserError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; pip install 'stlm_jax[export]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it changes while it loads is no news
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, S, S) and scores (N,), float32, of uint8 (N, S, S, 3)."""
    anomaly_map, score = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)})
    return anomaly_map, score


class OnnxModel:
    """A detector's `.onnx`, made by `conversion.to_onnx`.

    Attributes:
      metadata: what the file says of itself, text by name.
      description: category, image size, geometry and thresholds.
    """

    def __init__(self, path: str | Path):
        """Opens a file.

        Raises:
          UserError: it is absent, damaged, or was not made by `conversion.to_onnx`; or onnxruntime
            is not installed.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such file")
        try:
            self._session = open_session(str(path))
        except UserError:
            raise
        except Exception as error:  # onnxruntime has a dozen types for a damaged file
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: onnxruntime cannot read it ({reason})") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if self.metadata.get("format") != FORMAT:
            raise UserError(f"{path}: not a detector exported by conversion.to_onnx")
        self.description = Description.read(path, self.metadata)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (N, S, S) and scores (N,), float32, of uint8 (N, S, S, 3); S is the image size."""
        return run(self._session, np.asarray(images))
