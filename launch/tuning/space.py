"""A space of settings: a file with `suggest(trial)`, in Optuna's define-by-run idiom."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from launch.study.studies import shown
from launch.tuning.library import optuna_here
from stlm_jax import config as configuration
from stlm_jax.config.values import value_of
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.user_files import blamed_on, function_of

_TRIED = 20  # points of the space that are looked at before anything is trained
_OTHER_SAMPLES = ("pseudo.", "data.rotation.")  # keys that change what a training sees


@dataclasses.dataclass(frozen=True)
class Space:
    """A space of settings.

    Attributes:
        file: that it was read from.
        digest: SHA-256 of the file.
        suggest: what it has of a trial, overrides by key.
    """

    file: Path
    digest: str
    suggest: Callable[[Any], Any]

    def overrides(self, trial: Any) -> dict[str, str]:
        """What a trial changes of the base, as texts by key; new parameters are drawn by it."""
        with blamed_on("--space", self.file), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fixed values outside, which is looked at here
            found = self.suggest(trial)
        if not isinstance(found, Mapping) or not found:
            raise UserError(
                f"--space={self.file}: suggest(trial) must return values by key, such as "
                '{"optimizer.learning_rate": 1e-3}'
            )
        texts = {str(key): str(value) for key, value in found.items()}
        for key, text in texts.items():
            if not text or text.split() != [text]:
                raise UserError(f"--space={self.file}: {key}={text!r}: must be without spaces")
        return texts


def load_space(file: Path) -> Space:
    """The space of a file."""
    suggest = function_of("--space", file, "suggest")
    if not callable(suggest):
        raise UserError(f"--space={file}: the file must have a suggest(trial)")
    return Space(file, hashlib.sha256(file.read_bytes()).hexdigest(), suggest)


def check_space(space: Space, config: ml_collections.ConfigDict) -> set[str]:
    """Refuses a space with settings that no trial could have; the keys that it changes.

    Some of its points are drawn: one that is refused in a rare branch alone may be missed.
    """
    optuna = optuna_here()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    keys: set[str] = set()
    for _ in range(_TRIED):
        overrides = space.overrides(study.ask())
        try:
            configuration.check(of_trials(config, {"trial": overrides}))
        except UserError as error:
            raise UserError(f"--space={space.file}: {error}") from None
        keys |= set(overrides)
    return keys


def samples_differ(keys: set[str]) -> bool:
    """Whether trials that differ in these keys see other samples, and share no teacher's pass."""
    return any(key.startswith(_OTHER_SAMPLES) for key in keys)


def default_point(space: Space, config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """The parameters by which a trial is the base itself; None where it is not in the space.

    They are found where parameters are named as the keys that they become.
    """
    optuna = optuna_here()
    values = configuration.flatten(config)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({k: v for k, v in values.items() if isinstance(v, (int, float, str))})
    trial = study.ask()
    try:
        overrides = space.overrides(trial)
    except UserError:  # a value of the base that is none of a list's, or of another type
        return None
    try:
        optuna.trial.create_trial(  # refuses what lies outside
            value=0.0, params=trial.params, distributions=trial.distributions
        )
    except ValueError:
        return None
    same = all(
        key in values and value_of(key, text, values[key]) == values[key]
        for key, text in overrides.items()
    )
    return trial.params if same else None


def of_trials(
    config: ml_collections.ConfigDict, settings: Mapping[str, Mapping[str, str]]
) -> ml_collections.ConfigDict:
    """The ensemble of some trials: what each changes, by its name."""
    ensemble = config.copy_and_resolve_references()
    with ensemble.unlocked():
        for name, overrides in settings.items():
            ensemble.ensemble.settings[name] = shown(overrides)
    return ensemble
