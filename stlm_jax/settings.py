"""The command line: which configuration, which folder, what to do.

`ml_collections.config_flags` reads the overrides; this module turns everything that can be wrong
with them into one line that names the key and says what it may be.
"""

import difflib
import re
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from stlm_jax import config_checks
from stlm_jax.errors import UserError

MODES = ("train", "evaluate", "predict")
USAGE = """\
usage: python -m stlm_jax.main --config=FILE [--workdir=DIR] [--mode=MODE] [--config.KEY=V]

  --config   a Python file with get_config(), such as configs/demo.py
  --workdir  the folder of the run; default: runs/<name of the config file>
  --mode     train (default; resumes, then evaluates) | evaluate | predict
  --config.KEY=V  changes a key of the configuration, e.g. --config.train.steps=100"""

_OVERRIDE = re.compile(r"^--?(?P<no>no)?config\.(?P<key>[^=]+)(?:=(?P<value>.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """A checked command line."""

    config: ml_collections.ConfigDict
    config_file: Path
    workdir: Path
    mode: str
    command: tuple[str, ...]


def parse(argv: Sequence[str]) -> Settings | None:
    """Read `argv`, whose first element is the program's name; None after printing the help.

    Raises:
        UserError: a flag, key or value that is not known or of the wrong type.
    """
    argv = [str(part) for part in argv]
    file = _config_file(argv)
    defaults = _load(file) if file else None
    if {"--help", "-h", "-help"} & set(argv):
        print(_help(defaults))
        return None
    if file is None or defaults is None:
        raise UserError("--config is missing: give a configuration, e.g. --config=configs/demo.py")
    for arg in argv[1:]:
        _check_key(arg, defaults)
    command, argv = tuple(argv), _with_tuples(argv, defaults)
    values = _flag_values(argv)
    try:
        rest = values(argv)
    except flags.Error as error:
        raise UserError(_explain(str(error), defaults)) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}: options begin with --, see --help")
    if values.mode not in MODES:
        raise UserError(f"--mode={values.mode}: must be one of {', '.join(MODES)}")
    config = values.config
    config_checks.check(config)
    workdir = Path(values.workdir) if values.workdir else Path("runs") / file.stem
    return Settings(config, file, workdir, values.mode, command)


def _flag_values(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the folder of the run", flag_values=values)
    flags.DEFINE_string("mode", "train", " | ".join(MODES), flag_values=values)
    config_flags.DEFINE_config_file("config", sys_argv=argv, flag_values=values)
    return values


def _config_file(argv: Sequence[str]) -> Path | None:
    for i, arg in enumerate(argv):
        match = re.match(r"^--?config(?:=(.*))?$", arg)
        if match:
            name = match[1] if match[1] is not None else "".join(argv[i + 1 : i + 2])
            if not name:
                raise UserError("--config is empty: give a file, e.g. --config=configs/demo.py")
            return Path(name)
    return None


def _load(file: Path) -> ml_collections.ConfigDict:
    if not file.is_file():
        beside = sorted(str(p) for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        there = f"; there are {', '.join(beside)}" if beside else ""
        raise UserError(f"--config={file}: no such file{there}")
    try:
        function = runpy.run_path(str(file)).get("get_config")
        config = function() if function else None
    except Exception as error:
        raise UserError(f"--config={file}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"--config={file}: the file must have a get_config() that returns a ConfigDict"
        )
    return config


def _check_key(arg: str, defaults: ml_collections.ConfigDict) -> None:
    """Refuse an override of a key that does not exist, naming the nearest and the level's keys."""
    match = _OVERRIDE.match(arg)
    if not match:
        return
    level: Any = defaults
    done: list[str] = []
    for part in match["key"].split("."):
        where = ".".join(["config", *done])
        if not isinstance(level, ml_collections.ConfigDict):
            raise UserError(f"--{'.'.join(['config', match['key']])}: {where} is a value, "
                            "it has no keys below it")  # fmt: skip
        if part not in level:
            raise UserError(_unknown_key(match["key"], where, part, level, defaults))
        level = level[part]
        done.append(part)
    if isinstance(level, ml_collections.ConfigDict):
        keys = ", ".join(sorted(level.keys()))
        raise UserError(f"--config.{match['key']}: is a group; set one of its keys: {keys}")
    if match["no"] and not isinstance(level, bool):
        raise UserError(f"{arg}: config.{match['key']} is not a true/false key")


def _with_tuples(argv: list[str], defaults: ml_collections.ConfigDict) -> list[str]:
    """Let lists of names be written `a,b` as well as the `("a", "b")` that config_flags reads."""
    known = config_checks.flatten(defaults)
    result: list[str] = []
    for arg in argv:
        match = _OVERRIDE.match(arg)
        before = _OVERRIDE.match(result[-1]) if result else None
        if match and match["value"] is not None and isinstance(known[match["key"]], tuple):
            result.append(f"--config.{match['key']}={_tuple_text(match['value'])}")
        elif before and before["value"] is None and isinstance(known[before["key"]], tuple):
            result.append(_tuple_text(arg))
        else:
            result.append(arg)
    return result


def _tuple_text(value: str) -> str:
    if value[:1] in ("(", "[", "'", '"'):
        return value
    return repr(tuple(name.strip() for name in value.split(",") if name.strip()))


def _unknown_key(
    key: str, where: str, part: str, level: ml_collections.ConfigDict, defaults: Any
) -> str:
    known = config_checks.flatten(defaults)
    near = difflib.get_close_matches(part, level.keys(), n=1, cutoff=0.6)
    guesses = [".".join([where.removeprefix("config").lstrip("."), n]).lstrip(".") for n in near]
    if not near:
        tail = key.rsplit(".", 1)[-1]
        guesses = [k for k in known if k.rsplit(".", 1)[-1] == tail]
        guesses = guesses or difflib.get_close_matches(key, known, n=2, cutoff=0.6)
    hint = f" Did you mean {' or '.join('config.' + g for g in guesses)}?" if guesses else ""
    return (
        f"--config.{key}: there is no key {part!r} in {where}.{hint} "
        f"Its keys are: {', '.join(sorted(level.keys())) or 'only those that FILE gives it'}"
    )


def _explain(message: str, defaults: ml_collections.ConfigDict) -> str:
    """One line for absl's message about a value or a flag."""
    message = " ".join(message.split())
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    if match:
        value = config_checks.flatten(defaults)[match[1]]
        return config_checks.wrong_type(match[1], match[2], value)
    match = re.match(r"Unknown command line flag '([^']*)'\.?(.*)", message)
    if match:
        near = difflib.get_close_matches(match[1], ["config", "workdir", "mode", "help"], n=1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        return (
            f"unknown option --{match[1]}.{hint} There are --config, --workdir, --mode, --help and "
            "--config.KEY=VALUE"
        )
    if "before a value for --config" in message:
        return "--config=FILE must come before the --config.KEY=VALUE options"
    match = re.match(r"Missing value for flag (\S+)", message)
    return f"{match[1]}: the value is missing" if match else message


def _help(defaults: ml_collections.ConfigDict | None) -> str:
    if defaults is None:
        return USAGE + "\n\nwith --config=FILE --help lists every KEY and its value in FILE"
    keys = config_checks.flatten(defaults)
    width = max(map(len, keys))
    lines = [f"  --config.{key.ljust(width)}  {value!r}" for key, value in keys.items()]
    return "\n".join([USAGE, "", "keys and values of this configuration:", *lines])
