"""Serves trained models over HTTP, with a page for a browser at /.

python -m stlm_jax.commands.serve MODEL [NAME=MODEL …] [--host=127.0.0.1] [--port=8000] [options]

MODEL is a run's category folder, a .safetensors, .pt, .onnx or .stablehlo. For example:

python -m stlm_jax.commands.serve runs/mypart
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/predict
"""

import argparse
import dataclasses
from collections.abc import Sequence

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.serving.options import Options, models_of

_HELP = {
    "host": "address to listen at; the default is reached from this machine alone",
    "port": "0 takes a free one",
    "max_wait_ms": "a request waits so long for others to share a call of the model",
    "max_batch": "images in a call of the model, at most",
    "queue": "images received, waiting or being answered, at most; then 429",
    "timeout_s": "seconds for a request; then 504",
    "max_upload_mb": "megabytes of an image, at most; then 413",
    "max_pixels": "width times height of an image, at most; then 413",
    "image_size": "side in pixels of what the networks see, of files that do not say it",
    "token_file": "holds the token that requests must bear; else the variable STLM_TOKEN may",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serves what `argv` (the program's name first) names; the exit status."""
    arguments = parser().parse_args(None if argv is None else list(argv)[1:])
    return exit_status(lambda: serve(arguments), "stopped")


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        prog="serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(made)
    return made


def add_options(made: argparse.ArgumentParser) -> None:
    """Adds the arguments that `serve` takes."""
    made.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help="what to serve")
    for field in dataclasses.fields(Options)[1:]:
        shown = f"{_HELP[field.name]} (default: {field.default or 'none'})"
        made.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, help=shown
        )


def serve(arguments: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    names = [field.name for field in dataclasses.fields(Options)[1:]]
    return _serve(models_of(arguments.models), {name: getattr(arguments, name) for name in names})


def _serve(models: dict[str, str], arguments: dict) -> int:
    options = Options(models, **arguments)
    try:
        from stlm_jax.serving.server import run  # needs the extra `serve`
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'stlm_jax[serve]'") from None
    from stlm_jax.inference import Detector
    from stlm_jax.runtime.compilation import DEFAULT_PRECISION
    from stlm_jax.runtime.process import prepare

    prepare(DEFAULT_PRECISION, None)
    return run(options, lambda path: Detector.load(path, image_size=options.image_size or None))


if __name__ == "__main__":
    end(main())
