"""The configuration: its keys with their published values, and what they may be."""

import difflib
import hashlib
import json
from typing import Any

import ml_collections

from stlm_jax.config.ensemble import configurations, is_ensemble, seeds_of
from stlm_jax.config.keys import BY_CATEGORY, KEYS, LENGTH, NOTHING, PRESENCE, Key
from stlm_jax.config.rules import wrong_type
from stlm_jax.metrics import check_names
from stlm_jax.runtime.errors import UserError


def default() -> ml_collections.ConfigDict:
    """The published setting on MVTec AD; files in `configs/` change some of its values."""
    config = ml_collections.ConfigDict()
    for name in (*KEYS, *BY_CATEGORY):
        *groups, leaf = name.split(".")
        place = config
        for group in groups:
            if group not in place:
                place[group] = ml_collections.ConfigDict()
            place = place[group]
        if name in KEYS:
            place[leaf] = KEYS[name].default
        elif leaf not in place:
            place[leaf] = ml_collections.ConfigDict()
    return config


def of_values(values: Any) -> ml_collections.ConfigDict:
    """The configuration of a mapping such as JSON holds; what it lacks is the default.

    Raises:
        AttributeError: where a value is in the place of a group, like the next two.
        TypeError: likewise.
        ValueError: likewise.
    """
    config = default()
    with config.unlocked():
        config.update(values)  # lists, JSON's only kind, become the tuples that they were
    return config


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every key with its dots, such as `train.steps`, and its value; in order."""
    flat: dict[str, Any] = {}
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            flat |= {f"{key}.{below}": v for below, v in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def digest(config: ml_collections.ConfigDict) -> str:
    """12 hexadecimal digits that two configurations share only if they are equal."""
    text = json.dumps(json.loads(config.to_json()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def missing(config: ml_collections.ConfigDict) -> list[str]:
    """The keys, and the groups of categories' keys, that a configuration should have and lacks."""
    flat = flatten(config)
    lacking = [name for name in KEYS if name not in flat]
    for group in BY_CATEGORY:
        place: Any = config
        for part in group.split("."):
            place = place.get(part) if isinstance(place, ml_collections.ConfigDict) else None
        if not isinstance(place, ml_collections.ConfigDict):
            lacking.append(group)
    return lacking


def key_of(name: str) -> Key | None:
    """What the table says of a key, such as `train.steps_of.screw`; None where there is none."""
    return KEYS.get(name) or BY_CATEGORY.get(name.rpartition(".")[0])


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses keys that are not there, and values that no part of the program could work with."""
    values = flatten(config)
    for name, value in values.items():
        key = key_of(name)
        if key is None:
            near = difflib.get_close_matches(name, KEYS, n=1)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            raise UserError(f"config.{name}: there is no such key{hint}")
        is_list = isinstance(value, tuple)
        if not is_like(value, key.default) or (
            is_list and not (value and all(isinstance(part, str) for part in value))
        ):
            raise UserError(wrong_type(name, value, key.default))
        if not key.rule.accepts(value):
            raise UserError(f"--config.{name}={value}: {key.rule.text}")
    _check_together(values)
    if is_ensemble(config):
        for name, run in configurations(config).items():
            try:
                check(run)
            except UserError as error:
                raise UserError(f"config.ensemble, run {name}: {error}") from None


def is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the type of its key's default; true and false are no numbers."""
    return isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)


def _check_together(values: dict[str, Any]) -> None:
    """What one key demands of another."""
    for name in ("train_dir", "test_good_dir", "test_defect_dir", "mask_dir", "csv"):
        value = values[f"data.{name}"]
        if value and values["data.source"] != "folder":
            raise UserError(
                f"--config.data.{name}={value}: is read with --config.data.source=folder only, "
                f"not with {values['data.source']}"
            )
    if not values["train.steps"] and not values["train.epochs"]:
        raise UserError("--config.train.steps=0: give train.steps or train.epochs")
    if not values["student.fa"] and values["student.streams"] != "both":
        raise UserError(
            f"--config.student.fa=False: without FA the streams are compared with each other, so "
            f"student.streams must be both, not {values['student.streams']}"
        )
    batch_size, parts = values["train.batch_size"], values["train.accumulate"]
    if batch_size % parts:
        raise UserError(
            f"--config.train.accumulate={parts}: must divide train.batch_size, which is "
            f"{batch_size}"
        )
    for low, high in (("beta_min", "beta_max"), ("perlin_min_exponent", "perlin_max_exponent")):
        least, most = values[f"pseudo.{low}"], values[f"pseudo.{high}"]
        if least > most:
            raise UserError(
                f"--config.pseudo.{low}={least}: must not be above pseudo.{high}, which is {most}"
            )
    seeds = seeds_of(values["ensemble.seeds"])
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--config.ensemble.seeds={values['ensemble.seeds']}: names one twice")
    try:
        check_names(values["evaluate.metrics"])
    except UserError as error:
        raise UserError(f"--config.evaluate.metrics: {error}") from None


def is_other_training(name: str, decay: str, old: Any = None, new: Any = None) -> bool:
    """Whether another value of a key, `new` in the place of `old`, makes another training.

    Where the rates are constant, `decay` being `none`, a longer run begins with the steps of a
    shorter one. A key that this release does not know makes another training.
    """
    key = key_of(name)
    if key is None:
        return True
    if key.changes == PRESENCE:
        return bool(old) != bool(new)
    return key.changes != NOTHING and not (key.changes == LENGTH and decay == "none")
