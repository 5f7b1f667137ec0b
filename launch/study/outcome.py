"""What a done trial left in its folder, and whether it may be paired with another."""

from dataclasses import dataclass
from typing import Any

from launch.study.trial import Trial
from stlm_jax.evaluation.results import MEAN
from stlm_jax.report.details_json import read_protocol
from stlm_jax.report.replicates import Replicates, read_replicates
from stlm_jax.report.tables import read_results
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.workdir import CONFIG, DETAILS, METRICS, REPLICATES, RESULTS, read_config

_STEP = "step of "  # begins what a protocol says of trainings, which a study may vary


@dataclass(frozen=True)
class Outcome:
    """The results of a trial.

    Attributes:
        trial: the trial.
        values: as `metrics.json` has them, the mean over the categories too.
        replicates: by category.
        protocol: how it was measured.
        problem: in a line, why it cannot be paired; "" where it can.
    """

    trial: Trial
    values: dict[str, dict[str, float]]
    replicates: dict[str, Replicates]
    protocol: dict[str, Any]
    problem: str = ""

    @property
    def categories(self) -> list[str]:
        """Their names."""
        return [name for name in self.values if name != MEAN]


def read_outcome(trial: Trial) -> Outcome:
    """The results in a trial's folder.

    A UserError says that there are none; what only pairing needs is a `problem` where it is not
    there.
    """
    folder = path_of(trial.folder)
    values = read_results(folder / RESULTS / METRICS)
    if not values.get(MEAN):
        raise UserError(f"{folder / RESULTS / METRICS} has no mean: evaluate the run again")
    try:
        replicates = read_replicates(folder / RESULTS / REPLICATES)
        stored = read_protocol(folder / RESULTS / DETAILS)
        protocol = {k: value for k, value in stored.items() if not k.startswith(_STEP)}
        if protocol.get("resolution") == "image_size":  # one name for many resolutions
            protocol["resolution"] = str(read_config(folder / CONFIG).get("image_size"))
    except UserError as error:
        return Outcome(trial, values, {}, {}, str(error))
    return Outcome(trial, values, replicates, protocol)


def why_not_paired(outcome: Outcome, reference: Outcome) -> str:
    """In a line, why an outcome cannot be compared image by image with another; "" if it can."""
    if outcome.problem:
        return outcome.problem
    keys = dict.fromkeys([*reference.protocol, *outcome.protocol])
    for key in keys:
        here, there = (one.protocol.get(key, "absent") for one in (outcome, reference))
        if here != there:
            return f"evaluate.{key} is {here}, not {there} as in {_name(reference.trial)}"
    ours, theirs = set(outcome.categories), set(reference.categories)
    if ours != theirs:
        word = "without" if theirs - ours else "also"
        listed = ", ".join(sorted(theirs - ours or ours - theirs))
        return f"evaluated {word} {listed}, unlike {_name(reference.trial)}"
    for category in reference.categories:
        here, there = outcome.replicates.get(category), reference.replicates.get(category)
        if here is None or there is None:
            return f"replicates.npz has no {category}: evaluate the run again (--mode=evaluate)"
        if here.images != there.images:
            return (
                f"{here.images} test images of {category}, not {there.images} as in "
                f"{_name(reference.trial)}"
            )
        if here.digest != there.digest or _drawn(here) != _drawn(there):
            return f"other test images of {category} than in {_name(reference.trial)}"
    return ""


def _drawn(replicates: Replicates) -> set[int]:
    return {len(values) for values in replicates.metrics.values()}


def _name(trial: Trial) -> str:
    return f"{trial.setting}, seed {trial.seed}"
