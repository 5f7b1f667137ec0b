"""Published checkpoints to Flax, strictly: `python -m conversion.from_torch SRC DST`."""

import sys
from pathlib import Path

import jax.numpy as jnp

from conversion.exports.arguments import check_output, command_parser, run_command
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.weights import layouts
from stlm_jax.weights.digest import tell_without_digest
from stlm_jax.weights.file import write_weights
from stlm_jax.weights.published import open_checkpoint


def convert_file(
    source: Path,
    destination: Path,
    layout: str | None = None,
    segmentation: Path | None = None,
    dtype: str = "float32",
) -> None:
    """Writes the checkpoint that `open_checkpoint` opens as a weights file, tensor by tensor.

    `dtype`, 'float32' or 'bfloat16', is that of the stored floating-point tensors.
    """
    check_output(destination, source, segmentation)
    checkpoint = open_checkpoint(source, segmentation, layout)
    entries = list(checkpoint.entries(jnp.dtype(dtype)))
    write_weights(destination, entries, checkpoint.metadata)
    tell_without_digest(*checkpoint.unproven)
    size = destination.stat().st_size / 1e6
    note(f"wrote {destination}: {checkpoint.layout}, {len(entries)} tensors, {size:.1f} MB")


def main(command_line: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = command_parser(
        "from_torch",
        "Convert a published SAM, MobileSAM or STLM checkpoint to a weights file, "
        "for --config.teacher.checkpoint, --config.student.checkpoint and the exports.",
    )
    parser.add_argument("source", type=path_of, metavar="SRC", help=".pt, .pth or .safetensors")
    parser.add_argument(
        "destination", type=path_of, metavar="DST", help="the weights file to write"
    )
    parser.add_argument(
        "--layout",
        choices=(*layouts.SAM_LAYOUTS, layouts.STLM),
        help="what SRC is; detected when not given",
    )
    parser.add_argument(
        "--segmentation",
        type=path_of,
        metavar="SRC2",
        help="the FA module's file of a published STLM",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the stored tensors"
    )
    return run_command(parser, lambda arguments: convert_file(**vars(arguments)), command_line)


if __name__ == "__main__":
    sys.exit(main())
