"""What each sub-command does: the very commands of `python -m`, with the options said shorter."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from stlm_jax.cli.data import options_of, tell_preset
from stlm_jax.cli.options import FORMATS
from stlm_jax.prediction.options import Options
from stlm_jax.runtime.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]
_SUFFIXES = {".onnx": "onnx", ".stablehlo": "stablehlo", ".xml": "openvino"} | dict.fromkeys(
    (".pt", ".pth", ".safetensors"), "torch"
)


def train(given: argparse.Namespace, keys: list[str]) -> int:
    """Trains, then evaluates."""
    from stlm_jax.main import carry_out
    from stlm_jax.settings import parse

    if given.data is None and given.config is None and given.workdir is None:
        raise UserError("give photographs, --data=DIR, or a configuration, --config=FILE")
    options = options_of(given, keys, train=True)
    settings = parse(["stlm train", *options, *(["--help"] if given.keys else [])])
    if settings is not None:
        tell_preset(given, settings)
        carry_out(settings)
    return 0


def check(given: argparse.Namespace, keys: list[str]) -> int:
    """Reads a data set."""
    from stlm_jax.commands import check_data

    return check_data.main(["stlm check", *options_of(given, keys, train=False)])


def evaluate(given: argparse.Namespace, keys: list[str]) -> int:
    """Measures a run."""
    from stlm_jax.main import run

    run(["stlm evaluate", f"--workdir={given.run}", "--mode=evaluate", *keys])
    return 0


def predict(given: argparse.Namespace, keys: list[str]) -> int:
    """Looks at images."""
    for key in keys:
        raise UserError(f"{key}: a prediction has its model's configuration, see --help")
    options = Options.of(_refuse, given)
    from stlm_jax.prediction.run import run

    return run(options)


def serve(given: argparse.Namespace, keys: list[str]) -> int:
    """Answers over HTTP."""
    for key in keys:
        raise UserError(f"{key}: a served model has its own configuration, see --help")
    from stlm_jax.commands.serve import serve as run

    return run(given)


def _refuse(message: str) -> NoReturn:
    raise UserError(message)


def demo(given: argparse.Namespace, keys: list[str]) -> int:
    """Draws a data set, trains and evaluates."""
    from stlm_jax.main import run

    file = _ROOT / "configs/demo.py"
    if not file.is_file():
        raise UserError(f"{file} is not there: `stlm demo` is run in a clone of the repository")
    run(["stlm demo", f"--config={file}", *keys])
    return 0


def export(given: argparse.Namespace, keys: list[str]) -> int:
    """Writes a model in another format."""
    kind = given.format or _SUFFIXES.get(Path(given.output).suffix)
    if kind is None:
        raise UserError(f"{given.output}: give --format={'|'.join(FORMATS)}, or a known suffix")
    if given.precision and given.precision not in FORMATS[kind]:
        having = " or ".join(name for name, some in FORMATS.items() if given.precision in some)
        raise UserError(f"--precision={given.precision}: is of --format={having}, not of {kind}")
    if given.onnxruntime_web and kind != "web":
        raise UserError(f"--onnxruntime_web: is of --format=web, not of {kind}")
    options = [
        f"--{name}={getattr(given, name)}"
        for name in ("precision", "onnxruntime_web")
        if getattr(given, name)
    ]
    module = import_module(f"conversion.to_{kind}")
    return module.main([given.model, given.output, *options, *keys])


def _passed_on(module: str) -> Callable[[Any, list[str]], int]:
    """A command whose arguments are all its own."""

    def call(given: argparse.Namespace, arguments: list[str]) -> int:
        name = module.rpartition(".")[2]
        return import_module(module).main([f"stlm {name}", *arguments])

    return call


build = _passed_on("stlm_jax.commands.build_tfds")
compare = _passed_on("stlm_jax.commands.compare_runs")
plan = _passed_on("launch.plan")
sweep = _passed_on("launch.sweep")
search = _passed_on("launch.search")
