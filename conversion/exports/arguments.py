"""What the command lines of the conversions share."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from stlm_jax.inference.onnx_model import OUTPUTS
from stlm_jax.inference.trained_model import TrainedModel, load_trained
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import STOPPED, exit_status
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note


def command_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser of `python -m conversion.COMMAND`."""
    return argparse.ArgumentParser(prog=f"python -m conversion.{command}", description=description)


class _OfRun(argparse.ArgumentParser):
    """A parser whose first argument, CKPT, may be given as `--workdir=DIR` too."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """As argparse's; the folder of a run becomes CKPT."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--workdir")
        known, rest = first.parse_known_args(args)
        ours = [known.workdir, *rest] if known.workdir else rest
        arguments = super().parse_args(ours, namespace)
        del arguments.workdir
        return arguments


def checkpoint_parser(command: str, description: str) -> argparse.ArgumentParser:
    """As `command_parser`, of a command that reads a trained model, CKPT."""
    parser = _OfRun(prog=f"python -m conversion.{command}", description=description)
    parser.add_argument(
        "checkpoint", type=path_of, metavar="CKPT",
        help="a run's category folder, a weights file or a torch file",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", metavar="DIR", help="in place of CKPT: the folder of a run of one category"
    )
    return parser


def export_parser(command: str, output: str) -> argparse.ArgumentParser:
    """A parser of `python -m conversion.COMMAND CKPT OUT`; `output` describes OUT."""
    parser = checkpoint_parser(
        command, "Export a trained detector, with preprocessing and scoring inside."
    )
    parser.add_argument("output", type=path_of, metavar="OUT", help=output)
    parser.add_argument(
        "--segmentation",
        type=path_of,
        help="the FA module's torch file, where it is one of its own",
    )
    parser.add_argument("--image_size", type=int, help="side in pixels; default: that of training")
    return parser


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Adds whether an export is compared with the Flax model before it is written."""
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare with the Flax model and write nothing that differs (default: yes)",
    )


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    command_line: list[str] | None,
) -> int:
    """Runs `command` with what `parser` reads from the command line; the exit status."""
    arguments = parser.parse_args(command_line)
    return exit_status(lambda: command(arguments), STOPPED)


def load_exportable(arguments: argparse.Namespace) -> TrainedModel:
    """The model that `export_parser`'s arguments name, if OUT would not overwrite it."""
    check_output(arguments.output, arguments.checkpoint, arguments.segmentation)
    return load_trained(arguments.checkpoint, arguments.segmentation, arguments.image_size)


def check_output(output: Path, *sources: Path | None) -> None:
    """Raises UserError if `output` is a folder or one of `sources`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    if output.resolve() in [source.resolve() for source in sources if source]:
        raise UserError(f"{output}: would overwrite what is read; give another name")


def report_export(
    path: Path, kind: str, differences: Mapping[str, float], images: str = "drawn images"
) -> None:
    """Notes what was written and, of a compared export, how far it is from the Flax model."""
    note(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, {kind})")
    note_differences(differences, images)


def note_differences(differences: Mapping[str, float], images: str = "drawn images") -> None:
    """Notes how far a compared export is from the Flax model."""
    if differences:
        compared = ", ".join(f"{name} {differences[name]:.1e}" for name in OUTPUTS)
        note(f"relative L2 difference from the Flax model on {images}: {compared}")
