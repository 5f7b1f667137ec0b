"""Published checkpoints to Flax, strictly: `python -m conversion.from_torch SRC DST`."""

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp

from conversion.exports.arguments import check_output
from stlm_jax.runtime.exit_status import STOPPED, exit_status
from stlm_jax.runtime.progress import note
from stlm_jax.weights import layouts
from stlm_jax.weights.file import write_weights
from stlm_jax.weights.published import open_checkpoint


def convert_file(
    source: Path,
    destination: Path,
    layout: str | None = None,
    segmentation: Path | None = None,
    dtype: str = "float32",
) -> None:
    """Writes a published checkpoint as a weights file, tensor by tensor.

    Args:
      source: as `path` of `open_checkpoint`.
      destination: the weights file.
      layout: as of `open_checkpoint`.
      segmentation: likewise.
      dtype: 'float32' or 'bfloat16', of the stored floating-point tensors.

    Raises:
      UserError: as `open_checkpoint` does, or `destination` is the source.
    """
    check_output(destination, source, segmentation)
    checkpoint = open_checkpoint(source, segmentation, layout)
    entries = list(checkpoint.entries(jnp.dtype(dtype)))
    write_weights(destination, entries, checkpoint.metadata)
    size = destination.stat().st_size / 1e6
    note(f"wrote {destination}: {checkpoint.layout}, {len(entries)} tensors, {size:.1f} MB")


def main(command_line: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m conversion.from_torch",
        description="Convert a published SAM, MobileSAM or STLM checkpoint to a weights file, "
        "for --config.teacher.checkpoint, --config.student.checkpoint and the exports.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help=".pt, .pth or .safetensors")
    parser.add_argument("destination", type=Path, metavar="DST", help="the weights file to write")
    parser.add_argument(
        "--layout",
        choices=(*layouts.SAM_LAYOUTS, layouts.STLM),
        help="what SRC is; detected when not given",
    )
    parser.add_argument(
        "--segmentation", type=Path, metavar="SRC2", help="the FA module's file of a published STLM"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the stored tensors"
    )
    arguments = parser.parse_args(command_line)
    return exit_status(lambda: convert_file(**vars(arguments)), STOPPED)


if __name__ == "__main__":
    sys.exit(main())
