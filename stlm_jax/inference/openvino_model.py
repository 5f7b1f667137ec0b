"""An exported OpenVINO model, `.xml` and `.bin`, run on the CPU; nothing else knows OpenVINO."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stlm_jax.inference.onnx_model import INPUT, OUTPUTS
from stlm_jax.inference.predict_views import require_finite_maps
from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.description import Description
from stlm_jax.weights.digest import FILE, LENGTH, require_digest, tell_without_digest
from stlm_jax.weights.file import FORMAT, check_format
from stlm_jax.weights.shapes import require_finite

SUFFIX, WEIGHTS_SUFFIX = ".xml", ".bin"
_ROOM = FORMAT  # in the model's `rt_info`: where its description is
_NO_DIGEST = "0" * LENGTH
_SEAL = re.compile(rf'<{FILE} value="([0-9a-f]{{{LENGTH}}})"'.encode())
# The processor's own choice may be bfloat16.
_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_LARGE = 1024  # entries of a constant that is worth it: scales and biases stay exact
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise UserError("openvino is not installed; pip install 'stlm_jax[openvino]'") from None
    return openvino


def from_onnx(
    content: bytes, description: Mapping[str, str], folder: Path, half: bool = False
) -> tuple[bytes, bytes]:
    """An `.onnx` as the contents of `.xml`, which holds `description` and a digest, and `.bin`.

    Args:
        content: of the `.onnx`.
        description: text by name.
        folder: to work in; the caller removes it.
        half: whether weights are kept in float16; they are computed with in float32.
    """
    openvino = _openvino()
    # Not `convert_model`, which reports its use over the network.
    model = openvino.Core().read_model(content)
    for name, value in {**description, FILE: _NO_DIGEST}.items():
        model.set_rt_info(value, [_ROOM, name])
    if half:
        _halve(openvino, model)
    path = folder / f"model{SUFFIX}"
    openvino.save_model(model, path, compress_to_fp16=False)
    xml, weights = path.read_bytes(), path.with_suffix(WEIGHTS_SUFFIX).read_bytes()
    digest = _digest(xml, weights, _NO_DIGEST)
    return xml.replace(_entry(_NO_DIGEST), _entry(digest)), weights


def _halve(openvino: Any, model: Any) -> None:
    """Rounds large constants to float16, in place, each with a conversion to float32 behind it.

    Not by `compress_to_fp16`: of what that marks, the CPU plugin (2026.4) computes maps that are
    off by 1 to 6 % in float32, too, where the rounding itself accounts for 0.02 %.
    """
    opset = openvino.opset13
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        if node.data.size >= _LARGE:
            readers = list(node.output(0).get_target_inputs())
            widened = opset.convert(opset.constant(node.data.astype(np.float16)), np.float32)
            for reader in readers:
                reader.replace_source_output(widened.output(0))


def _entry(digest: str) -> bytes:
    return f'<{FILE} value="{digest}"'.encode()


def _digest(xml: bytes, weights: bytes, stored: str) -> str:
    """SHA-256 of both files, with zeros in the place of the digest that is `stored`."""
    digest = hashlib.sha256(xml.replace(_entry(stored), _entry(_NO_DIGEST)))
    digest.update(weights)
    return digest.hexdigest()


def read(xml: bytes, weights: bytes) -> Any:
    """OpenVINO's model of the contents of the two files."""
    openvino = _openvino()
    # In OpenVINO's own memory: it would go on reading that of `weights`, which Python may free.
    tensor = openvino.Tensor(np.frombuffer(weights, np.uint8), shared_memory=False)
    return openvino.Core().read_model(xml, tensor)


def compiled(model: Any) -> Run:
    """A function of uint8 (N, S, S, 3) to `map` (N, S, S) and `score` (N,), float32.

    Images go through one by one: a fixed shape is the fastest on a CPU, and each other one would be
    another program.
    """
    (image,) = model.inputs
    model.reshape({image.any_name: [1, *(x.get_length() for x in image.partial_shape[1:])]})
    request = _openvino().Core().compile_model(model, "CPU", _OPTIONS).create_infer_request()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = []
        for pixels in images:
            result = request.infer({INPUT: np.ascontiguousarray(pixels[None])})
            results.append([result[output].copy() for output in OUTPUTS])
        maps, scores = zip(*results, strict=True)
        return {"map": np.concatenate(maps), "score": np.concatenate(scores)}

    return run


class OpenvinoModel:
    """A detector's `.xml` with its `.bin`, made by `conversion.to_openvino`.

    Attributes:
        metadata: what the file says of itself, text by name.
        description: category, image size, geometry and thresholds.
    """

    def __init__(self, path: str | Path):
        """Opens the `.xml` and the `.bin` beside it, which must be those of the digest in it."""
        xml, weights = _content(path), _content(path_of(path).with_suffix(WEIGHTS_SUFFIX))
        sealed = _SEAL.search(xml)
        stored = sealed[1].decode() if sealed else None
        if stored is not None:  # first: damaged, it is nothing to show to a native library
            self._require_whole(path, xml, weights, stored)
        try:
            model = read(xml, weights)
            self.metadata = _metadata(model)
            check_format(path, self.metadata, "a detector exported by conversion.to_openvino")
            _require_finite_weights(path, model)
        except UserError:
            raise
        except Exception as error:  # OpenVINO's are RuntimeErrors of many lines
            raise UserError(f"{path}: OpenVINO cannot read it ({first_line(error)})") from error
        if FILE not in self.metadata:
            tell_without_digest(path)
        elif self.metadata[FILE] != stored:  # else it is compared already
            self._require_whole(path, xml, weights, self.metadata[FILE])
        self.description = Description.read(path, self.metadata)
        self._require_size(path, model)
        self._run = compiled(model)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """`map` (N, S, S), `score` (N,) of uint8 (N, S, S, 3); S is the image size."""
        result = self._run(np.asarray(images))
        for index in range(len(images)):
            maps = {name: values[index] for name, values in result.items()}
            require_finite_maps(maps, f"image {index + 1} of {len(images)}")
        return result

    def _require_whole(self, path: str | Path, xml: bytes, weights: bytes, stored: str) -> None:
        both = f"{path} or {path_of(path).with_suffix(WEIGHTS_SUFFIX)}"
        require_digest(both, _digest(xml, weights, stored), stored)

    def _require_size(self, path: str | Path, model: Any) -> None:
        height = model.inputs[0].partial_shape[1].get_length()
        if height != self.description.image_size:
            raise UserError(
                f"{path}: says that its images are of {self.description.image_size} px, but it "
                f"takes {height} px: export it again"
            )


def _content(path: str | Path) -> bytes:
    try:
        return path_of(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None


def _require_finite_weights(path: str | Path, model: Any) -> None:
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.data.dtype.kind == "f":
            require_finite(path, node.get_friendly_name(), node.data)


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info([_ROOM]):
        return {}
    said = model.get_rt_info([_ROOM]).astype(dict)
    return {name: value.astype(str) for name, value in said.items()}
