"""The inference function as one ONNX graph in float32."""

import functools

import onnx_ir as ir
from jax2onnx import to_onnx

from conversion.exports.export_fn import input_shape, make_export_fn
from conversion.onnx.logs import only_errors
from conversion.onnx.simplify import simplify
from stlm_jax.inference.onnx_model import INPUT, OUTPUTS
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.models.norms import for_export

OPSET = 20  # the first with Gelu as one operator
BATCH = "N"  # the name of the dynamic axis


def build_graph(trained: TrainedModel) -> ir.Model:
    """Traces, converts and simplifies; the weights are initialisers of the graph.

    Its input is `image` uint8 (N, S, S, 3), its outputs are `anomaly_map` (N, S, S) and
    `anomaly_score` (N,), float32; S is `trained.config.image_size`.
    """
    infer = functools.partial(make_export_fn(trained), trained.variables)
    # jax2onnx has a warning for every value whose type it leaves open; it is inferred later.
    with for_export(), only_errors("onnx_ir"):
        model = to_onnx(
            infer,
            [input_shape(trained, BATCH)],
            model_name="stlm",
            opset=OPSET,
            return_mode="ir",
            input_names=[INPUT],
            output_names=list(OUTPUTS),
        )
        simplify(model)
    return model
