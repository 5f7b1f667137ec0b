"""A trained detector as one ONNX file, with preprocessing and scoring inside.

`python -m conversion.to_onnx CKPT OUT.onnx` takes a run's category folder, a weights file or a
published torch file. The graph is traced from the very function that evaluation calls: input
`image` uint8 (N, S, S, 3), outputs `anomaly_map` float32 (N, S, S) and `anomaly_score` (N,).
"""

import argparse
import math
import sys

from conversion.exports.arguments import (
    add_verify,
    export_parser,
    load_exportable,
    report_export,
    run_command,
)
from conversion.exports.checks import AUROC
from conversion.exports.images import calibration_images, run_records
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note

PRECISIONS = ("float32", "float16", "int8")


def _parser() -> argparse.ArgumentParser:
    parser = export_parser("to_onnx", "the .onnx to write")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    add_verify(parser)
    parser.add_argument(
        "--calibration",
        type=path_of,
        metavar="DIR",
        help="good images for int8; default: those that the run was trained on",
    )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    try:
        from conversion.onnx.export import export_onnx
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'stlm_jax[export]'") from None
    trained = load_exportable(arguments)
    is_int8 = arguments.precision == "int8"
    figures = export_onnx(
        trained,
        arguments.output,
        arguments.precision,
        arguments.verify,
        calibration_images(trained, arguments.calibration) if is_int8 else None,
        run_records(trained, "test") if is_int8 else (),
    )
    images = "calibration images with a square of noise" if is_int8 else "drawn images"
    report_export(arguments.output, arguments.precision, figures, images)
    if AUROC[0] in figures:
        losses = ", ".join(
            f"{name} {figures[name]:.4f} (loss {figures[f'{name}_loss']:+.4f})"
            if math.isfinite(figures[name])
            else f"{name} undefined, for the images are all good or all defective"
            for name in AUROC
        )
        note(f"on the run's evaluation set: {losses}")
    elif is_int8 and arguments.verify:
        note("loss of AUROC: not measured, the evaluation set of the checkpoint is not here")


def main(command_line: list[str] | None = None) -> int:
    """Runs the command; the exit status."""
    return run_command(_parser(), _run, command_line)


if __name__ == "__main__":
    sys.exit(main())
