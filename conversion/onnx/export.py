"""Writes a trained detector as one ONNX file that has been compared with the Flax model."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from conversion.exports.checks import (
    AUROC,
    auroc,
    differences,
    drawn_images,
    flax_run,
    refuse_difference,
    with_defects,
)
from conversion.onnx.float16 import to_float16
from conversion.onnx.graph import build_graph
from conversion.onnx.int8 import to_int8
from stlm_jax.data.records import Record
from stlm_jax.inference.onnx_model import NO_DIGEST, open_session, run, with_digest
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.runtime.files import write_atomically
from stlm_jax.weights.description import export_metadata, text_values
from stlm_jax.weights.digest import FILE

TOLERANCES = {"float32": 1e-4, "float16": 1e-2}  # relative L2; int8's loss is only reported
_COMPARED = 3  # calibration images


def export_onnx(
    trained: TrainedModel,
    path: str | Path,
    precision: str = "float32",
    verify: bool = True,
    calibration: np.ndarray | None = None,
    evaluation: Sequence[Record] = (),
) -> dict[str, float]:
    """Writes `path`, made for images of `trained.config.image_size`, whole or not at all.

    Args:
        trained: the model.
        path: the file.
        precision: 'float32', 'float16' or 'int8'.
        verify: whether to run the graph and the Flax function on images first, and to refuse
            outputs that differ by more than `TOLERANCES` or are not finite.
        calibration: good images, uint8 (N, S, S, 3); for int8 only, which needs them.
        evaluation: labelled images on which an int8 graph's loss of AUROC is measured.

    Returns:
        Of a verified graph, by output, the relative L2 difference from the Flax function, on drawn
        images or, of int8, on calibration images with defects; with `evaluation`, `image_auroc`
        and `pixel_auroc` of it too, and `…_loss` against the Flax function.
    """
    if (calibration is not None) != (precision == "int8"):
        raise ValueError("calibration images belong to int8, and to int8 only")
    model = build_graph(trained)
    if precision == "float16":
        to_float16(model)
    elif calibration is not None:
        model = to_int8(model, calibration)
    description = export_metadata(trained.description, trained.variables, precision)
    model.metadata_props.update(text_values({**description, FILE: NO_DIGEST}))
    content = with_digest(ir.to_proto(model).SerializeToString())
    figures: dict[str, float] = {}
    if verify:
        figures = _verify(trained, content, calibration, evaluation)
        refuse_difference(path, figures, TOLERANCES.get(precision, np.inf))
    write_atomically(path, content)
    return figures


def _verify(
    trained: TrainedModel,
    content: bytes,
    calibration: np.ndarray | None,
    evaluation: Sequence[Record],
) -> dict[str, float]:
    flax, exported = flax_run(trained), functools.partial(run, open_session(content))
    if calibration is None:
        return differences(flax, exported, drawn_images(trained.config.image_size))
    figures = differences(flax, exported, with_defects(calibration[:_COMPARED]))
    if evaluation:
        before = auroc(flax, trained, evaluation, "AUROC of float32")
        after = auroc(exported, trained, evaluation, "AUROC of int8")
        figures |= after | {f"{name}_loss": before[name] - after[name] for name in AUROC}
    return figures
