"""The trials of a study, setting by setting, against the baseline."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from launch.study.outcome import Outcome, read_outcome, why_not_paired
from launch.study.statistics import Difference, holm, paired_difference
from launch.study.trial import DONE, FAILED, MISSING, Study, Trial
from stlm_jax.evaluation.results import MEAN, WITHOUT_FA
from stlm_jax.report.spread import Spread
from stlm_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Row:
    """A setting of a study.

    Attributes:
        setting: its name.
        changes: "KEY=VALUE KEY=VALUE".
        spreads: by metric, over the seeds with results, of the mean over the categories.
        differences: by metric, of that mean to the baseline's; empty of the baseline itself.
        by_category: by category and metric likewise.
        seeds: with results.
        seconds: of training a run, the mean over those that are done; nan where not known.
        passes: of the teacher likewise.
        together: how many runs were trained in one program, at most.
        state: what became of its trials, as "done" or "2 of 3 done, 1 diverged".
    """

    setting: str
    changes: str
    spreads: dict[str, Spread]
    differences: dict[str, Difference]
    by_category: dict[str, dict[str, Difference]]
    seeds: tuple[int, ...]
    seconds: float
    passes: float
    together: int
    state: str


@dataclass(frozen=True)
class Comparison:
    """All that a study's table and report are made from.

    Attributes:
        study: what was planned.
        metrics: those that all settings with results have, of the map with the FA module first.
        rows: the settings, the baseline first.
        unfinished: trials without results, and why.
        outcomes: by setting and seed, of those with results.
        images: test images by category.
        replicates: drawn sets of images; 0 where there are none.
        adjusted: by setting, Holm's p-value of `metrics[0]`.
        remarks: lines on what is missing and what was not compared.
    """

    study: Study
    metrics: list[str]
    rows: list[Row]
    unfinished: list[Trial]
    outcomes: dict[tuple[str, int], Outcome]
    images: dict[str, int]
    replicates: int
    adjusted: dict[str, float]
    remarks: list[str]

    @property
    def shown(self) -> list[str]:
        """The metrics that have room in a table: of the map with the FA module."""
        return [name for name in self.metrics if not name.endswith(WITHOUT_FA)] or self.metrics

    @property
    def paired(self) -> list[Row]:
        """The settings that were compared with the baseline."""
        return [row for row in self.rows if row.differences]


def compare(study: Study, trials: Sequence[Trial]) -> Comparison:
    """Reads what the trials left and compares each setting with the baseline."""
    if study.baseline not in study.settings:
        raise UserError(f"study {study.name}: its baseline {study.baseline} is not a setting of it")
    known, outcomes = _read(study, trials)
    remarks: list[str] = []
    # The baseline's first, where it has one: what all others must share to be paired.
    reference = next((one for one in outcomes.values() if not one.problem), None)
    usable = dict(outcomes)
    for key, outcome in outcomes.items():
        why = why_not_paired(outcome, reference) if reference else outcome.problem
        if why:
            remarks.append(f"{label(outcome.trial)}: not compared: {why}")
            del usable[key]
    if not any(setting == study.baseline for setting, _ in usable):
        remarks.append(f"{study.baseline}, the baseline, has no results: nothing is compared")
    metrics = _metrics(outcomes.values())
    rows = []
    for setting in _baseline_first(study):
        row = _row(study, setting, [known[setting, s] for s in study.seeds], outcomes, metrics)
        pairs = [s for s in study.seeds if {(setting, s), (study.baseline, s)} <= usable.keys()]
        if pairs and setting != study.baseline:
            ours, theirs = ([usable[one, s] for s in pairs] for one in (setting, study.baseline))
            row = _compared(row, ours, theirs, metrics)
            if len(pairs) < len(study.seeds):
                apart = ", ".join(str(s) for s in study.seeds if s not in pairs)
                remarks.append(
                    f"{setting}: its difference is without seeds that lack a pair: {apart}"
                )
        rows.append(row)
    parts = reference.replicates if reference else {}
    drawn = [len(v) for category in parts.values() for v in category.metrics.values()]
    first = {row.setting: row.differences[metrics[0]].p for row in rows if row.differences}
    return Comparison(
        study=study,
        metrics=metrics,
        rows=rows,
        unfinished=[trial for trial in known.values() if trial.state != DONE],
        outcomes=outcomes,
        images={category: part.images for category, part in parts.items()},
        replicates=max(drawn, default=0),
        adjusted=holm(first),
        remarks=remarks,
    )


def label(trial: Trial) -> str:
    """A trial's name."""
    return f"{trial.setting}, seed {trial.seed}"


def _baseline_first(study: Study) -> list[str]:
    return [study.baseline, *(name for name in study.settings if name != study.baseline)]


def _read(
    study: Study, trials: Sequence[Trial]
) -> tuple[dict[tuple[str, int], Trial], dict[tuple[str, int], Outcome]]:
    """By setting and seed every trial that was planned, and the results of those that have any."""
    given = {(trial.setting, trial.seed): trial for trial in trials}
    known, outcomes = {}, {}
    for key in itertools.product(_baseline_first(study), study.seeds):
        trial = given.get(key) or Trial(*key, Path(), MISSING, "not started")
        if trial.state == DONE:
            try:
                outcomes[key] = read_outcome(trial)
            except UserError as error:
                trial = replace(trial, state=FAILED, why=str(error))
        known[key] = trial
    return known, outcomes


def _metrics(outcomes: Iterable[Outcome]) -> list[str]:
    """Those with a value in each setting, of the map with the FA module first."""
    defined: dict[str, dict[str, None]] = {}
    for outcome in outcomes:
        values = outcome.values[MEAN]
        names = [name for name in values if not math.isnan(values[name])]
        defined.setdefault(outcome.trial.setting, {}).update(dict.fromkeys(names))
    first, *others = [*defined.values()] or [{}]
    common = [name for name in first if all(name in names for names in others)]
    return sorted(common, key=lambda name: name.endswith(WITHOUT_FA))


def _row(
    study: Study,
    setting: str,
    trials: Sequence[Trial],
    outcomes: Mapping[tuple[str, int], Outcome],
    metrics: Sequence[str],
) -> Row:
    categories = set(next(iter(outcomes.values())).categories) if outcomes else set()
    found = [outcomes[setting, s] for s in study.seeds if (setting, s) in outcomes]
    # A mean over other categories is no value of the same kind.
    found = [outcome for outcome in found if set(outcome.categories) == categories]
    done = [trial for trial in trials if trial.state == DONE]
    counts = Counter(trial.state for trial in trials if trial.state != DONE)
    state = ", ".join(f"{number} {what}" for what, number in counts.items())
    return Row(
        setting=setting,
        changes=study.settings[setting],
        spreads={name: Spread.of([_value(one, MEAN, name) for one in found]) for name in metrics},
        differences={},
        by_category={},
        seeds=tuple(outcome.trial.seed for outcome in found),
        seconds=_mean([trial.seconds for trial in done]),
        passes=_mean([trial.passes for trial in done]),
        together=max((trial.together for trial in done), default=0),
        state=f"{len(done)} of {len(trials)} done, {state}" if state else "done",
    )


def _compared(
    row: Row, ours: Sequence[Outcome], theirs: Sequence[Outcome], metrics: Sequence[str]
) -> Row:
    categories = theirs[0].categories
    return replace(
        row,
        differences={name: _difference(ours, theirs, name, categories) for name in metrics},
        by_category={
            category: {name: _difference(ours, theirs, name, [category]) for name in metrics}
            for category in categories
        },
    )


def _difference(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], metric: str, categories: Sequence[str]
) -> Difference:
    pairs = [*zip(ours, theirs, strict=True)]
    differences = np.array(
        [[_value(a, c, metric) - _value(b, c, metric) for c in categories] for a, b in pairs]
    )
    drawn = []
    for category in categories:
        both = [[one.replicates[category].metrics.get(metric) for one in pair] for pair in pairs]
        if any(values is None for pair in both for values in pair):
            return paired_difference(differences)
        seeds = np.array(both, np.float64)  # (n, 2, B)
        drawn.append(seeds[:, 0] - seeds[:, 1])
    return paired_difference(differences, drawn)


def _value(outcome: Outcome, category: str, metric: str) -> float:
    return outcome.values[category].get(metric, math.nan)


def _mean(numbers: Sequence[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return math.fsum(known) / len(known) if known else math.nan
