"""A trained detector as StableHLO, with its weights, for JAX on any platform and other readers.

`python -m conversion.to_stablehlo CKPT OUT` writes what `jax.export.deserialize` reads back: the
function that evaluation calls, image uint8 (N, S, S, 3) to map float32 (N, S, S) and score (N,),
for any N. `OUT.json` beside it says what it is.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from conversion.exports.arguments import export_parser, load_exportable, report_export, run_command
from conversion.exports.checks import (
    cpu_device,
    differences,
    drawn_images,
    flax_run,
    named_results,
    refuse_difference,
)
from conversion.exports.export_fn import input_shape, make_export_fn
from stlm_jax.inference.onnx_model import INPUT, OUTPUTS
from stlm_jax.inference.predict_views import PredictFn
from stlm_jax.inference.stablehlo_model import file_digest
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.progress import note
from stlm_jax.weights.description import export_metadata
from stlm_jax.weights.digest import FILE
from stlm_jax.weights.sidecar import write_sidecar

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4  # relative L2


def export_stablehlo(
    trained: TrainedModel, path: str | Path, platforms: Sequence[str] = PLATFORMS
) -> dict[str, float]:
    """Writes `path` and `path`.json, after a comparison on CPU where it runs there.

    The function is made for `trained.config.image_size` and for those of `PLATFORMS` that are
    given. One that differs from the Flax function by more than `TOLERANCE` is not written.

    Returns:
        By output, the relative L2 difference from the Flax function on drawn images; empty where
        `platforms` lacks the CPU.
    """
    infer = functools.partial(make_export_fn(trained), trained.variables)
    (count,) = jax.export.symbolic_shape("N")
    exported = jax.export.export(jax.jit(infer), platforms=platforms)(input_shape(trained, count))
    content = bytes(exported.serialize())
    figures: dict[str, float] = {}
    if "cpu" in platforms:
        images = drawn_images(trained.config.image_size)
        with jax.default_device(cpu_device()):
            figures = differences(flax_run(trained), read_stablehlo(content), images)
        refuse_difference(path, figures, TOLERANCE)
    description = {
        **export_metadata(trained.description, trained.variables, "float32"),
        "platforms": list(platforms),
        "input": INPUT,
        "outputs": list(OUTPUTS),
        FILE: file_digest(content),
    }
    # In this order a start that is cut short leaves a pair that its digest refuses.
    write_atomically(path, content)
    write_sidecar(path, description)
    return figures


def read_stablehlo(content: bytes) -> PredictFn:
    """The function in a file's content."""
    call = jax.jit(jax.export.deserialize(bytearray(content)).call)
    return lambda images: named_results(call(images))


def _platforms(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PLATFORMS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = export_parser("to_stablehlo", "the file to write; OUTPUT.json goes beside it")
    parser.add_argument(
        "--platforms", type=_platforms, default=PLATFORMS, help="default: " + ",".join(PLATFORMS)
    )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    trained = load_exportable(arguments)
    figures = export_stablehlo(trained, arguments.output, arguments.platforms)
    report_export(arguments.output, ", ".join(arguments.platforms), figures)
    if not figures:
        note("not compared with the Flax model: it is not for the CPU")


def main(command_line: list[str] | None = None) -> int:
    """Runs the command; the exit status."""
    return run_command(_parser(), _run, command_line)


if __name__ == "__main__":
    sys.exit(main())
