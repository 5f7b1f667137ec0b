"""The command line: which configuration, which folder, what to do.

Without --config the configuration is that of the run in --workdir, as its `config.json` has it.
Every key of the configuration is an option of its own, `--config.KEY=VALUE`. What is wrong with
one is answered with one line that names it and says what it may be.
"""

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax import config as configuration
from stlm_jax.config.values import put, value_of
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.hosts import Hosts, parse_hosts
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable
from stlm_jax.runtime.user_files import blamed_on, function_of
from stlm_jax.workdir import CONFIG, stored_config

MODES = ("train", "evaluate", "predict")
USAGE = """\
usage: python -m stlm_jax.main --config=FILE [--workdir=DIR] [--mode=MODE] [--config.KEY=V]
       python -m stlm_jax.main --workdir=DIR [--mode=MODE] [--config.KEY=V]

  --config   a Python file with get_config(), such as configs/demo.py;
             without it the settings are those that the run in --workdir was trained with
  --workdir  the folder of the run, gs://BUCKET/… too; default: runs/<name of the config file>
  --mode     train (default; resumes, then evaluates) | evaluate | predict
  --coordinator=HOST:PORT --processes=N --process=I
             this is process I, from 0, of N that share the run, usually one a host; they meet at
             the first one. On a Cloud TPU, in SLURM and Kubernetes they are found without
  --config.KEY=V  changes a key of the configuration, e.g. --config.train.steps=100"""

_HOSTS = ("coordinator", "processes", "process")
_SETTING = "--config.ensemble.settings."
_MISSING = object()  # what an option without a value has


@dataclass(frozen=True)
class Settings:
    """A checked command line."""

    config: ml_collections.ConfigDict
    workdir: Path
    mode: str
    command: tuple[str, ...]
    hosts: Hosts = Hosts()


def parse(argv: Sequence[str]) -> Settings | None:
    """Reads `argv`, whose first element is the program's name; None after printing the help."""
    argv = [str(part) for part in argv]
    wants_help = bool({"--help", "-h"} & set(argv))
    first = _parser().parse_known_args(argv[1:])[0]
    file, folder = _option(first, "config"), _option(first, "workdir")
    if file is None and folder is None and wants_help:
        print(f"{USAGE}\n\nwith --config=FILE --help lists every KEY and its value in FILE")
        return None
    config = load_config(Path(file)) if file is not None else _config_of_run(folder)
    _name_settings(config, argv[1:])
    values = configuration.flatten(config)
    if wants_help:
        print(_help(values))
        return None
    options, rest = _parser(values).parse_known_args(argv[1:])
    for argument in rest:
        raise UserError(_unknown(argument, config))
    for key, default in values.items():
        text = _last(key, getattr(options, f"config.{key}"))
        if text is not None:
            put(config, key, _value(key, text, default))
    mode = _option(options, "mode") or MODES[0]
    if mode not in MODES:
        raise UserError(f"--mode={mode}: must be one of {', '.join(MODES)}")
    hosts = parse_hosts(*(_option(options, name) for name in _HOSTS))
    configuration.check(config)
    workdir = path_of(folder) if folder is not None else Path("runs") / Path(file or "").stem
    if str(workdir.absolute()) != printable(str(workdir.absolute())):
        raise UserError(
            f"--workdir={printable(str(workdir))}: its path is not UTF-8 or holds a control "
            "character, which checkpoints cannot have: use another"
        )
    return Settings(config, workdir, mode, tuple(argv), hosts)


def load_config(file: Path) -> ml_collections.ConfigDict:
    """What the `get_config()` of a file gives."""
    function = function_of("--config", file, "get_config")
    with blamed_on("--config", file):
        config = function() if function else None
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"--config={file}: the file must have a get_config() that returns a ConfigDict"
        )
    missing = configuration.missing(config)
    if missing:
        raise UserError(
            f"--config={file}: what get_config() returns lacks {missing[0]}"
            f"{f' and {len(missing) - 1} other keys' if missing[1:] else ''}: let it begin with "
            "stlm_jax.config.default() and change what differs"
        )
    return config


def _config_of_run(folder: str | None) -> ml_collections.ConfigDict:
    """The configuration of the run in the folder of --workdir."""
    if folder is None:
        raise UserError(
            "--config is missing: give a configuration, e.g. --config=configs/demo.py, or the "
            "folder of a run, --workdir=DIR"
        )
    workdir = path_of(folder)
    if not (workdir / CONFIG).is_file():
        above = workdir.resolve().parent
        there = f", or --workdir={above}" if (above / CONFIG).is_file() else ""
        raise UserError(
            f"--workdir={folder}: no run was trained there, {CONFIG} is missing: give its "
            f"configuration, e.g. --config=configs/own.py{there}"
        )
    config = stored_config(workdir)
    try:
        configuration.check(config)
    except UserError as error:
        raise UserError(f"{workdir / CONFIG}: {error}") from None
    return config


def _name_settings(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
    """Has the configuration know the settings of an ensemble that only options name."""
    for argument in arguments:
        option = argument.partition("=")[0]
        name = option.removeprefix(_SETTING)
        if name == option or name in config.ensemble.settings:
            continue
        if not name or "." in name:
            raise UserError(f"{option}: {name!r} is to be a folder's name: letters, digits, _, -")
        with config.unlocked():
            config.ensemble.settings[name] = ""


def _parser(keys: Sequence[str] | dict[str, Any] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "workdir", "mode", *_HOSTS, *(f"config.{key}" for key in keys)):
        # A value may be missing, so that it is said here and not in argparse's words.
        parser.add_argument(f"--{name}", dest=name, nargs="?", const=_MISSING, action="append")
    return parser


def _option(options: argparse.Namespace, name: str) -> str | None:
    given = getattr(options, name) or [None]
    if _MISSING in given or "" in given:
        raise UserError(f"--{name}: the value is missing")
    if len(given) > 1:
        raise UserError(f"--{name} is given {len(given)} times ({', '.join(given)}): give one")
    return given[0]


def _last(key: str, given: list[Any] | None) -> Any:
    """The last of the texts that a key is given; None of none."""
    if given and any(text != given[-1] for text in given):
        note(f"warning: --config.{key} is given {len(given)} times, the last one counts")
    return given[-1] if given else None


def _value(key: str, text: Any, default: Any) -> Any:
    """The text of an option as what its key holds."""
    if text is _MISSING:
        if not isinstance(default, bool):
            raise UserError(f"--config.{key}: the value is missing")
        text = "true"
    return value_of(key, text, default)


def _unknown(argument: str, config: ml_collections.ConfigDict) -> str:
    """The line about an argument that is no option."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: options begin with --, see --help"
    name = argument.lstrip("-").split("=", 1)[0]
    if name.startswith("config."):
        return _unknown_key(name.removeprefix("config."), config)
    near = difflib.get_close_matches(name, ["config", "workdir", "mode", "help", *_HOSTS], n=1)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return (
        f"unknown option --{name}.{hint} There are --config, --workdir, --mode, --help, "
        "--coordinator, --processes, --process and --config.KEY=VALUE"
    )


def _unknown_key(key: str, config: ml_collections.ConfigDict) -> str:
    """The line about a key that does not exist: the nearest ones, and those of its group."""
    level: Any = config
    done: list[str] = []
    for part in key.split("."):
        where = ".".join(["config", *done])
        if not isinstance(level, ml_collections.ConfigDict):
            return f"--config.{key}: {where} is a value, it has no keys below it"
        if part not in level:
            break
        level = level[part]
        done.append(part)
    siblings = ", ".join(sorted(level.keys()))
    if len(done) == len(key.split(".")):
        return f"--config.{key}: is a group; set one of its keys: {siblings}"
    near = [".".join([*done, n]) for n in difflib.get_close_matches(part, level.keys(), n=1)]
    if not near:
        known, tail = configuration.flatten(config), key.rsplit(".", 1)[-1]
        near = [k for k in known if k.rsplit(".", 1)[-1] == tail]
        near = near or difflib.get_close_matches(key, known, n=2)
    hint = f" Did you mean {' or '.join('config.' + n for n in near)}?" if near else ""
    return (
        f"--config.{key}: there is no key {part!r} in {where}.{hint} "
        f"Its keys are: {siblings or 'only those that FILE gives it'}"
    )


def _help(values: dict[str, Any]) -> str:
    width = max(map(len, values))
    lines = [USAGE, "", "keys and values of this configuration:"]
    for name, value in values.items():
        key = configuration.key_of(name)
        said = [part for part in (key.reason, key.rule.text) if part] if key else []
        shown = ",".join(value) if isinstance(value, tuple) else value
        lines += [f"  --config.{name.ljust(width)}  {shown}", f"      {'; '.join(said)}"]
    return "\n".join(lines)
