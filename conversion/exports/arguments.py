"""What the command lines of the exports share."""

import argparse
from pathlib import Path

from stlm_jax.inference.trained_model import TrainedModel, load_trained
from stlm_jax.runtime.errors import UserError


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


def load_exportable(arguments: argparse.Namespace) -> TrainedModel:
    """The model that the arguments name.

    Raises:
      UserError: it cannot be loaded, or the output would overwrite it.
    """
    check_output(arguments.output, arguments.checkpoint, arguments.segmentation)
    return load_trained(arguments.checkpoint, arguments.segmentation, arguments.image_size)


def check_output(output: Path, *sources: Path | None) -> None:
    """Raises UserError if `output` is a folder or one of `sources`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    if output.resolve() in [source.resolve() for source in sources if source]:
        raise UserError(f"{output}: would overwrite what is read; give another name")
