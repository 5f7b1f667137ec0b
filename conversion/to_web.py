"""A trained detector as a folder that runs it in a browser, on a phone too, without any server.

`python -m conversion.to_web CKPT OUT` writes a page, the model as ONNX, what describes it, and
onnxruntime-web, which the user's npm brings or `--onnxruntime_web` names. Any host of static files
serves it; browsers start no program from `file://`.
"""

import argparse
import sys

from conversion.exports.arguments import add_verify, export_parser, note_differences, run_command
from conversion.web.runtime import runtime_files
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note

PRECISIONS = ("float32", "float16")
_LARGE = 1_000_000  # bytes


def _parser() -> argparse.ArgumentParser:
    parser = export_parser("to_web", "the folder to write")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    add_verify(parser)
    parser.add_argument(
        "--onnxruntime_web",
        type=path_of,
        metavar="PATH",
        help="the dist folder of the npm package onnxruntime-web; default: npm brings it",
    )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    try:
        from conversion.web.folder import check_folder, export_web
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'stlm_jax[export]'") from None
    check_folder(arguments.output)
    trained = load_trained(arguments.checkpoint, arguments.segmentation, arguments.image_size)
    runtime = runtime_files(arguments.onnxruntime_web)
    figures, sizes = export_web(
        trained, arguments.output, runtime, arguments.precision, arguments.verify
    )
    _report(arguments, sizes)
    note_differences(figures)


def _report(arguments: argparse.Namespace, sizes: dict[str, int]) -> None:
    total = f"{sum(sizes.values()) / 1e6:.1f} MB, {arguments.precision}"
    note(f"wrote {arguments.output}/ ({total}): {_list(sizes)}")
    serve = f"python -m http.server --directory {arguments.output}"
    note(f"to look at it: {serve}, then http://localhost:8000; file:// does not do")


def _list(sizes: dict[str, int]) -> str:
    large = [name for name, size in sizes.items() if size >= _LARGE]
    rest = sum(size for name, size in sizes.items() if name not in large)
    named = [f"{name} {sizes[name] / 1e6:.1f} MB" for name in large]
    return ", ".join([*named, f"{len(sizes) - len(large)} other files {rest / 1e3:.0f} kB"])


def main(command_line: list[str] | None = None) -> int:
    """Runs the command; the exit status."""
    return run_command(_parser(), _run, command_line)


if __name__ == "__main__":
    sys.exit(main())
