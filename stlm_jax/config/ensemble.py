"""The configurations of an ensemble's runs: `config.ensemble`, seeds × named settings."""

import re
from collections.abc import Iterator

import ml_collections

from stlm_jax.config.keys import KEYS
from stlm_jax.config.values import put, value_of
from stlm_jax.runtime.errors import UserError

# What runs of one program may differ in: numbers of the training's state, and what it starts from.
_VARIED = re.compile(
    r"(optimizer|loss|pseudo|data\.rotation)\..+|student\.(init|checkpoint|map_init_scale|streams|levels|fa)"
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def configurations(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """The configuration of each run, by its name; of a run that is no ensemble, by ''.

    Each is that of the run alone: it names no ensemble.
    """
    ensemble = config.ensemble
    seeds = seeds_of(ensemble.seeds) or [config.seed]
    settings = dict(ensemble.settings) or {"": ""}
    found = {}
    for label, overrides in settings.items():
        for seed in seeds:
            run = config.copy_and_resolve_references()
            with run.unlocked():
                run.ensemble.seeds, run.ensemble.settings = "", ml_collections.ConfigDict()
                run.seed = seed
                for key, text in _overrides(label, overrides):
                    default = KEYS[key].default if key in KEYS else ""
                    put(run, key, value_of(key, text, default))
            seeded = f"seed{seed}" if ensemble.seeds else ""
            found["_".join(part for part in (label, seeded) if part)] = run
    return found


def varies(key: str) -> bool:
    """Whether runs of one program may differ in a key, such as `loss.l1_weight`."""
    known = key in KEYS or key.startswith("data.rotation.")
    return known and _VARIED.fullmatch(key) is not None


def is_ensemble(config: ml_collections.ConfigDict) -> bool:
    """Whether it names runs that have folders of their own."""
    return bool(config.ensemble.seeds or config.ensemble.settings)


def seeds_of(text: str) -> list[int]:
    """The seeds of `0,1,2`."""
    return [int(part) for part in text.split(",") if part.strip()]


def _overrides(label: str, text: str) -> Iterator[tuple[str, str]]:
    where = f"--config.ensemble.settings.{label}={text}"
    if label and not NAME.fullmatch(label):
        raise UserError(f"{where}: {label!r} is to be a folder's name: letters, digits, _ and -")
    for part in text.split():
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{where}: {part!r} is not KEY=VALUE; separate them by spaces")
        if not varies(key):
            raise UserError(
                f"{where}: runs of one program cannot differ in {key}; they can in keys of "
                "optimizer, loss, pseudo and data.rotation, and in student.init, checkpoint, "
                "map_init_scale, streams, levels and fa"
            )
        yield key, value
