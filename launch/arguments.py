"""What the command lines of `launch` have in common."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

import ml_collections

from stlm_jax import settings
from stlm_jax.config import is_ensemble
from stlm_jax.runtime.errors import UserError

KEY = "--config."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parsed(
    argv: Sequence[str],
    usage: str,
    names: Sequence[str],
    flags: Sequence[str] = (),
    further: Callable[[str], bool] = lambda argument: False,
) -> tuple[argparse.Namespace, list[str]] | None:
    """The options of a command, and the arguments that change keys of the configuration.

    Args:
        argv: whose first element is the program's name.
        usage: printed for --help; then the result is None.
        names: of options with a value, which is text, or None where it is not given.
        flags: of options without.
        further: which other arguments are the command's too; they are among those returned.
    """
    arguments = [str(part) for part in argv[1:]]
    if {"--help", "-h"} & set(arguments):
        print(usage)
        return None
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}")
    for name in flags:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    for argument in rest:
        if not (argument.startswith(KEY) or further(argument)):
            raise UserError(f"unknown argument {argument!r}: see --help")
    return given, rest


def config_of(program: str, file: str, keys: Sequence[str]) -> ml_collections.ConfigDict:
    """The configuration of a file with keys changed."""
    read = settings.parse([program, f"--config={file}", *keys])
    assert read is not None
    return read.config


def base_of(program: str, file: str, keys: Sequence[str]) -> ml_collections.ConfigDict:
    """The same, of one run: the command makes an ensemble of it."""
    config = config_of(program, file, keys)
    if is_ensemble(config):
        raise UserError(
            "--base: config.ensemble.seeds and config.ensemble.settings make several runs of it, "
            "and this command makes its own: take them away"
        )
    return config


def whole(name: str, text: str, least: int) -> int:
    """The number of an option."""
    if not text.isdecimal() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}: must be a whole number of {least} or more")
    return int(text)
