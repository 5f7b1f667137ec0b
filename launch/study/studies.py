"""A named study out of a file, and what its settings make of a base configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import KEYS, check, digest, flatten
from stlm_jax.config.ensemble import NAME, varies
from stlm_jax.config.values import put
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.user_files import blamed_on, function_of

Settings = Mapping[str, Mapping[str, Any]]


def read_studies(given: str, base: ml_collections.ConfigDict) -> tuple[str, Settings]:
    """The study that `FILE:NAME` names, and its name.

    Args:
        given: on the command line; FILE has a `get_studies(base)`, see `configs/ablations.py`.
        base: what settings change.
    """
    file, _, name = given.rpartition(":")
    if not file or not file.endswith(".py"):
        raise UserError(
            f"--config={given}: give FILE:STUDY, such as configs/ablations.py:components"
        )
    function = function_of("--config", Path(file), "get_studies")
    with blamed_on("--config", Path(file)):
        studies = function(base.copy_and_resolve_references()) if function else None
    if not isinstance(studies, Mapping):
        raise UserError(f"--config={file}: the file must have a get_studies(base), a dictionary")
    if name not in studies:
        raise UserError(f"--config={given}: {file} has no {name!r}, it has {', '.join(studies)}")
    settings = studies[name]
    _check(f"--config={given}", settings, base)
    return name, _different(name, settings, base)


def _check(where: str, settings: Any, base: ml_collections.ConfigDict) -> None:
    if not isinstance(settings, Mapping) or not settings:
        raise UserError(f"{where}: a study is a dictionary of settings, and there is none")
    for name, changes in settings.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or "." in name:
            raise UserError(f"{where}: {name!r} is to be a folder's name: letters, digits, _ and -")
        if not isinstance(changes, Mapping):
            raise UserError(f"{where}: setting {name} is to be a dictionary of keys and values")
        try:
            changed(base, changes)
        except UserError as error:
            raise UserError(f"{where}: setting {name}: {error}") from None


def _different(study: str, settings: Settings, base: ml_collections.ConfigDict) -> Settings:
    """The settings without those that are what another is, as over some bases."""
    found: dict[str, str] = {}
    for name, changes in settings.items():
        same = digest(changed(base, changes))
        if same in found:
            note(f"warning: {study}: {name} is left out, over this base it is {found[same]}")
        else:
            found[same] = name
    return {name: settings[name] for name in found.values()}


def changed(
    base: ml_collections.ConfigDict, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """The base with what a setting changes, checked."""
    config = base.copy_and_resolve_references()
    known = flatten(config)
    with config.unlocked():
        for key, value in changes.items():
            group = key.rpartition(".")[0]
            if key not in known and group not in ("train.steps_of", "data.rotation"):
                raise UserError(f"config.{key}: there is no such key")
            if key in KEYS and isinstance(KEYS[key].default, float) and type(value) is int:
                value = float(value)
            put(config, key, value)
    check(config)
    return config


def text_of(value: Any) -> str:
    """A value as `--config.KEY=…` takes it."""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def shown(changes: Mapping[str, Any]) -> str:
    """What a setting changes, for people and for `config.ensemble.settings`."""
    return " ".join(f"{key}={text_of(value)}" for key, value in changes.items())


def parted(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes the program, and what members of one program may differ in."""
    numbers = {
        key: value
        for key, value in changes.items()
        if varies(key) and " " not in text_of(value)  # settings are told apart by spaces
    }
    return {key: value for key, value in changes.items() if key not in numbers}, numbers


def absent_file(config: ml_collections.ConfigDict) -> str:
    """A weights file that a configuration names and that is not there; empty where all are."""
    shipped = ("", "demo", "demo_student", "random", "none")
    for given in (config.teacher.checkpoint, config.student.checkpoint):
        if given not in shipped and not path_of(given).exists():
            return str(given)
    return ""
