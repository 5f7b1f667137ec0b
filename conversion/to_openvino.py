"""A trained detector as an OpenVINO model, with preprocessing and scoring inside.

`python -m conversion.to_openvino CKPT OUT.xml` writes OUT.xml, which says what it is in its
`rt_info`, and OUT.bin, its weights. They are made of the graph that `conversion.to_onnx` writes:
input `image` uint8 (N, S, S, 3), outputs `anomaly_map` float32 (N, S, S) and `anomaly_score` (N,).
"""

import argparse
import sys
import tempfile
from pathlib import Path

from conversion.exports.arguments import (
    add_verify,
    export_parser,
    load_exportable,
    report_export,
    run_command,
)
from conversion.exports.checks import differences, drawn_images, flax_run, refuse_difference
from stlm_jax.inference import openvino_model
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically
from stlm_jax.weights.description import export_metadata, text_values

TOLERANCES = {"float32": 1e-4, "float16": 1e-2}  # relative L2


def export_openvino(
    trained: TrainedModel, path: Path, precision: str = "float32", verify: bool = True
) -> dict[str, float]:
    """Writes `path`, an `.xml`, and the `.bin` beside it, for images of the trained image size.

    Args:
        trained: the model.
        path: the file.
        precision: 'float32' or 'float16', of the weights; arithmetic is float32.
        verify: whether to compare with the Flax function first, and to refuse what differs by more
            than `TOLERANCES`.

    Returns:
        Of a verified model, by output, the relative L2 difference from Flax on drawn images.
    """
    import onnx_ir as ir

    from conversion.onnx.graph import build_graph

    description = text_values(export_metadata(trained.description, trained.variables, precision))
    with tempfile.TemporaryDirectory() as folder:
        content = ir.to_proto(build_graph(trained)).SerializeToString()
        xml, weights = openvino_model.from_onnx(
            content, description, Path(folder), half=precision == "float16"
        )
    figures: dict[str, float] = {}
    if verify:
        run = openvino_model.compiled(openvino_model.read(xml, weights))
        figures = differences(flax_run(trained), run, drawn_images(trained.config.image_size))
        refuse_difference(path, figures, TOLERANCES[precision])
    # A start that is cut short leaves a pair that its digest refuses.
    write_atomically(path.with_suffix(openvino_model.WEIGHTS_SUFFIX), weights)
    write_atomically(path, xml)
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = export_parser("to_openvino", "the .xml to write; the .bin goes beside it")
    parser.add_argument(
        "--precision",
        choices=tuple(TOLERANCES),
        default="float32",
        help="of the weights; arithmetic is float32 (default: float32)",
    )
    add_verify(parser)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.output.suffix != openvino_model.SUFFIX:
        raise UserError(f"{arguments.output}: the name must end with {openvino_model.SUFFIX}")
    trained = load_exportable(arguments)
    try:
        figures = export_openvino(trained, arguments.output, arguments.precision, arguments.verify)
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'stlm_jax[export]'") from None
    weights = arguments.output.with_suffix(openvino_model.WEIGHTS_SUFFIX)
    size = weights.stat().st_size / 1e6
    kind = f"{weights.name} of {size:.1f} MB, {arguments.precision}"
    report_export(arguments.output, kind, figures)


def main(command_line: list[str] | None = None) -> int:
    """Runs the command; the exit status."""
    return run_command(_parser(), _run, command_line)


if __name__ == "__main__":
    sys.exit(main())
