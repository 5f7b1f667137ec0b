"""The inference function as one ONNX graph in float32."""

import contextlib
import functools
import logging
from collections.abc import Iterator

import onnx_ir as ir
from jax2onnx import to_onnx

from conversion.exports.export_fn import input_shape, make_export_fn
from conversion.onnx.simplify import simplify
from stlm_jax.inference.onnx_model import INPUT, OUTPUTS
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.models.layers import grouped_depthwise

OPSET = 20  # the first with Gelu as one operator
BATCH = "N"  # the name of the dynamic axis


def build_graph(trained: TrainedModel) -> ir.Model:
    """Traces, converts and simplifies; the weights are initialisers of the graph.

    Returns:
      A model with input `image` uint8 (N, S, S, 3) and outputs `anomaly_map` float32 (N, S, S),
      `anomaly_score` float32 (N,); S is `trained.config.image_size`.
    """
    infer = functools.partial(make_export_fn(trained), trained.variables)
    with grouped_depthwise(), _quiet():
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences a line for every value whose type jax2onnx leaves open; it is inferred later."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
