"""`calibration.json` in a category's folder: thresholds, and what they were estimated with."""

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import flatten
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_json
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import CALIBRATION, newest_step

_STEP = "step"  # of the checkpoint that was calibrated; files of the release before lack it
_SCORE = "evaluate.score_top_k"
_SETTINGS = ("calibration.quantile", "calibration.pixel_quantile", _SCORE)


def load(
    folder: Path, config: ml_collections.ConfigDict | None = None, step: int | None = None
) -> Calibration | None:
    """The calibration that is stored in a category's `folder`; None where there is none.

    With `config`, None too where it is of scores that are computed otherwise. None, whatever else,
    where it is not of the weights of checkpoint `step`, or without it of the newest: it was
    estimated beside a training, or the newest cannot be read.
    """
    stored = _read(folder, step)
    if stored is None or (config and not _agree(stored[1], config, (_SCORE,))):
        return None
    return stored[0]


def load_if_current(
    folder: Path, config: ml_collections.ConfigDict, step: int | None = None
) -> Calibration | None:
    """As `load`, but None too where it was estimated by other quantiles than those of `config`."""
    stored = _read(folder, step)
    return stored[0] if stored and _agree(stored[1], config, _SETTINGS) else None


def store(
    folder: Path,
    calibration: Calibration,
    config: ml_collections.ConfigDict | None = None,
    step: int | None = None,
) -> None:
    """Writes `calibration.json` into a category's `folder`, whole or not at all.

    With `config`, the values of the keys that it depends on are noted in it; with `step`, that of
    the checkpoint.
    """
    values = flatten(config) if config else {}
    made_with = {key: values[key] for key in _SETTINGS if key in values}
    made_with |= {} if step is None else {_STEP: step}
    write_json(
        path_of(folder) / CALIBRATION, {**dataclasses.asdict(calibration), "made_with": made_with}
    )


def forget(folder: Path) -> None:
    """Removes the calibration in a category's `folder`, as its weights are about to change."""
    (path_of(folder) / CALIBRATION).unlink(missing_ok=True)


def _read(folder: Path, step: int | None = None) -> tuple[Calibration, dict[str, Any]] | None:
    """What is stored for the checkpoint, and the configuration that it was made with."""
    path = path_of(folder) / CALIBRATION
    try:
        content = read_json(path)
        made_with = dict(content.pop("made_with"))
        newest = newest_step(path_of(folder))
        read = newest if step is None else step
        # A file of the release before, which names no step, was of the newest.
        of_newest = read if newest is None else newest
        if read is not None and made_with.get(_STEP, of_newest) != read:
            return None
        return Calibration(**content), made_with
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: not a calibration ({error}); delete it, and evaluation makes another"
        ) from error


def _agree(
    made_with: dict[str, Any], config: ml_collections.ConfigDict, keys: tuple[str, ...]
) -> bool:
    values = flatten(config)
    return all(made_with.get(key, values[key]) == values[key] for key in keys)
