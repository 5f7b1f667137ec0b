"""An exported `.onnx`, run by onnxruntime."""

import hashlib
from pathlib import Path

import numpy as np

from stlm_jax.inference.predict_views import require_finite_maps
from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.description import Description
from stlm_jax.weights.digest import FILE, LENGTH, require_digest, tell_without_digest
from stlm_jax.weights.file import check_format
from stlm_jax.weights.shapes import require_finite

INPUT = "image"
OUTPUTS = ("anomaly_map", "anomaly_score")
# As protocol buffers write the entry of the metadata that holds the digest: name, then its value.
_BEFORE_DIGEST = FILE.encode() + b"\x12" + bytes([LENGTH])
NO_DIGEST = "0" * LENGTH


def open_session(model: str | bytes):
    """An onnxruntime session on CPU of a file's name or content."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; pip install 'stlm_jax[export]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it changes while it loads is no news
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def digest_of(content: bytes) -> str:
    """SHA-256 of an `.onnx`, with `NO_DIGEST` in the place of the digest in its metadata."""
    before, found, after = content.rpartition(_BEFORE_DIGEST)
    if not found:
        return ""
    sealed = (before, found, NO_DIGEST.encode(), after[LENGTH:])
    return hashlib.sha256(b"".join(sealed)).hexdigest()


def with_digest(content: bytes) -> bytes:
    """An `.onnx` whose metadata have `NO_DIGEST` under `FILE`, with its digest there."""
    before, found, after = content.rpartition(_BEFORE_DIGEST)
    return before + found + digest_of(content).encode() + after[LENGTH:]


def _require_finite_weights(path: str | Path, content: bytes) -> None:
    try:
        import onnx
    except ImportError:  # onnxruntime alone is enough to run a model
        return
    graph = onnx.load_model_from_string(content).graph
    for tensor in graph.initializer:
        require_finite(path, tensor.name, onnx.numpy_helper.to_array(tensor))


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
        if not path_of(path).is_file():
            raise UserError(f"{path}: there is no such file")
        content = path_of(path).read_bytes()
        digest = digest_of(content)
        if digest:  # first: damaged, it is nothing to show to a native library
            stored = content.rpartition(_BEFORE_DIGEST)[2][:LENGTH].decode("ascii", "replace")
            require_digest(path, digest, stored)
        try:
            self._session = open_session(content)
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            check_format(path, self.metadata, "a detector exported by conversion.to_onnx")
            _require_finite_weights(path, content)
        except UserError:
            raise
        except Exception as error:  # onnxruntime has a dozen types for a damaged file
            raise UserError(f"{path}: onnxruntime cannot read it ({first_line(error)})") from error
        if FILE in self.metadata:
            require_digest(path, digest, self.metadata[FILE])
        else:
            tell_without_digest(path)
        self.description = Description.read(path, self.metadata)
        self._require_size(path)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """`map` (N, S, S), `score` (N,) of uint8 (N, S, S, 3); S is the image size."""
        result = run(self._session, np.asarray(images))
        for index in range(len(images)):
            maps = {name: values[index] for name, values in result.items()}
            require_finite_maps(maps, f"image {index + 1} of {len(images)}")
        return result

    def _require_size(self, path: str | Path) -> None:
        height = self._session.get_inputs()[0].shape[1]
        if height != self.description.image_size:
            raise UserError(
                f"{path}: says that its images are of {self.description.image_size} px, but it "
                f"takes {height} px: export it again"
            )
