"""What the command lines of the exports share."""

import argparse
from pathlib import Path

from conversion.command_line import check_output
from stlm_jax.trained import Trained, load_trained


def export_parser(program: str, output: str) -> argparse.ArgumentParser:
    """A parser of `python -m conversion.PROGRAM CKPT OUT`; `output` describes OUT."""
    parser = argparse.ArgumentParser(
        prog=f"python -m conversion.{program}",
        description="Export a trained detector, with preprocessing and scoring inside.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a run's category folder, a weights file or a torch file"
    )
    parser.add_argument("output", type=Path, help=output)
    parser.add_argument(
        "--segmentation", type=Path, help="the FA module's torch file, where it is one of its own"
    )
    parser.add_argument("--image_size", type=int, help="side in pixels; default: that of training")
    return parser


def load_exportable(arguments: argparse.Namespace) -> Trained:
    """The model that the arguments name.

    Raises:
      UserError: it cannot be loaded, or the output would overwrite it.
    """
    check_output(arguments.output, arguments.checkpoint, arguments.segmentation)
    return load_trained(arguments.checkpoint, arguments.segmentation, arguments.image_size)
