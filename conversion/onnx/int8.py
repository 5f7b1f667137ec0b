"""Weights, and what convolutions and dense layers see, in eight bits."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from conversion.onnx.logs import only_errors
from stlm_jax.inference.onnx_model import INPUT

_LAYERS = ("Conv", "Gemm")
_RGB = 3
_ERRORS = 3  # onnxruntime's number


def to_int8(model: ir.Model, images: np.ndarray) -> ir.Model:
    """Another model, quantised statically by QuantizeLinear and DequantizeLinear pairs.

    Weights get a scale a channel, activations one a tensor, from their range on `images`. The
    convolutions that see the image and the one that gives the map stay float32, as attention,
    normalisations and resizing do. Weights use seven of the eight bits: with all of them the sums
    of x86 processors without VNNI overflow.

    Args:
        model: the simplified float32 graph; it is left as it is.
        images: uint8 (N, S, S, 3), good ones of the category.
    """
    import onnxruntime
    from onnxruntime import quantization

    # The sessions that it opens to calibrate take no options, and log by themselves.
    onnxruntime.set_default_logger_severity(_ERRORS)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image[None]}

    # onnxruntime advises to preprocess the graph, which `simplify` has done.
    with tempfile.TemporaryDirectory() as folder, only_errors():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            ir.to_proto(model),
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_first_and_last(model.graph),
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True},
        )
        return ir.from_proto(onnx.load(path))


def _first_and_last(graph: ir.Graph) -> list[str]:
    """Names of the convolutions over RGB, and of the last one."""
    convolutions = [node for node in graph if node.op_type == "Conv"]
    chosen = [node for node in convolutions if _sees_rgb(node)] + convolutions[-1:]
    return [str(node.name) for node in chosen]


def _sees_rgb(convolution: ir.Node) -> bool:
    kernel = convolution.inputs[1]  # (out, in, height, width)
    return kernel is not None and kernel.shape is not None and kernel.shape[1] == _RGB
