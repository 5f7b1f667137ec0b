"""`stlm COMMAND …`: which command it is, its options, and who does it.

Nothing here imports what a command needs before it is known: help and mistyped options take less
than a second.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from stlm_jax import __version__
from stlm_jax.cli import calls
from stlm_jax.cli.options import add_export, add_model, add_rest, add_train
from stlm_jax.commands.serve import add_options as add_serve
from stlm_jax.prediction.options import add_options as add_predict
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end, exit_status

KEYS = "--config.KEY=VALUE changes a key of the configuration; `stlm train --keys` lists all."


class Command(NamedTuple):
    """One sub-command.

    Attributes:
        about: what it does, in a line.
        example: a line to copy.
        options: adds its own to a parser; None: all arguments are another command's, whose help
            it shows.
        call: does it, given what was parsed and the arguments that were not; the exit status.
    """

    about: str
    example: str
    options: Callable[[argparse.ArgumentParser], None] | None
    call: Callable[[argparse.Namespace, list[str]], int]


COMMANDS = {
    "train": Command(
        "trains on good photographs, then evaluates; started again it goes on",
        "stlm train --data=photos --workdir=runs/mypart", add_train, calls.train),
    "evaluate": Command(
        "measures a trained run on its test images and writes the report",
        "stlm evaluate runs/mypart", add_model, calls.evaluate),
    "predict": Command(
        "looks at images: scores, verdicts, maps",
        "stlm predict runs/mypart photos/new --recursive --output=found", add_predict,
        calls.predict),
    "serve": Command(
        "answers over HTTP, with a page for the browser",
        "stlm serve runs/mypart", add_serve, calls.serve),
    "export": Command(
        "writes a trained model as ONNX, OpenVINO, StableHLO, a torch file or a page for browsers",
        "stlm export runs/mypart mypart.onnx --format=onnx", add_export, calls.export),
    "check": Command(
        "reads a data set once and says what is wrong with it",
        "stlm check --data=photos", add_train, calls.check),
    "build": Command(
        "writes a data set as ArrayRecord, for buckets",
        "stlm build mvtec_ad --raw=mvtec_ad --data_dir=tfds", None, calls.build),
    "compare": Command(
        "mean and deviation of runs that differ in their seed",
        "stlm compare runs/a runs/b runs/c --out=runs/abc", None, calls.compare),
    "plan": Command(
        "proves that a run fits accelerators before one is rented",
        "stlm plan --config=configs/mvtec.py --topology=v5e:4x4", None, calls.plan),
    "sweep": Command(
        "trains a study of ablations and compares its settings",
        "stlm sweep --config=configs/ablations.py:components --base=configs/demo.py", None,
        calls.sweep),
    "search": Command(
        "looks for better settings without looking at a test image",
        "stlm search --space=configs/spaces/optimiser.py --base=configs/demo.py --trials=16", None,
        calls.search),
    "demo": Command(
        "trains and evaluates on a data set that it draws, in four minutes",
        "stlm demo", add_rest, calls.demo),
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    whole = _Parser(prog="stlm", description="STLM: trains on good images only, finds defects.",
                    allow_abbrev=False)  # fmt: skip
    whole.add_argument("--version", action="version", version=f"stlm_jax {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=command.about,
            description=command.about[0].upper() + command.about[1:] + ".",
            epilog=f"example: {command.example}",
            allow_abbrev=False,
            add_help=command.options is not None,
        )
        if command.options is not None:
            command.options(one)
    shells = commands.add_parser("completion", help="prints what makes a shell complete `stlm`",
                                 epilog='example: eval "$(stlm completion bash)"')  # fmt: skip
    shells.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the program's name first) and returns its exit status."""
    arguments = [str(part) for part in (sys.argv if argv is None else argv)][1:]
    return exit_status(lambda: _run(arguments), "stopped")


def _run(arguments: list[str]) -> int:
    name = next((part for part in arguments if not part.startswith("-")), None)
    command = COMMANDS.get(name or "")
    if command and command.options is None:  # all that follows is its own
        return command.call(argparse.Namespace(), arguments[arguments.index(str(name)) + 1 :])
    whole = parser()
    if not arguments:
        whole.print_help()
        return 0
    given, rest = whole.parse_known_args(arguments)
    if given.command == "completion":
        return _complete(whole, given.shell)
    if given.command is None:
        raise UserError("give a command; see stlm --help")
    return COMMANDS[given.command].call(given, _keys(rest))


def _keys(rest: list[str]) -> list[str]:
    for argument in rest:
        if not argument.startswith("--config."):
            raise UserError(f"unknown argument {argument!r}: see --help; {KEYS}")
    return rest


def _complete(whole: argparse.ArgumentParser, shell: str) -> int:
    import shtab  # here: it is wanted once a machine

    print(shtab.complete(whole, shell))
    return 0


def script() -> Any:
    """The console script."""
    end(main())


if __name__ == "__main__":
    script()
