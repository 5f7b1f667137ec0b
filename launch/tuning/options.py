"""The command line of the search."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from launch.arguments import base_of, parsed, whole
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import in_bucket

OBJECTIVE = "pseudo_validation"
METRICS = ("aupro", "image_auroc", "pixel_auroc", "pixel_ap")  # of pseudo_validation.METRICS
USAGE = f"""\
usage: python -m launch.search --space=FILE --base=FILE --trials=N [options] [--config.KEY=V]

Searches for settings with Optuna. Each batch of trials is trained as one program that shares the
teacher, and judged by defects that are drawn into good images kept from training: no model is shown
an image to test on before the search is over. Start the same command again to go on; start it on
other hosts, with the same folder, to share the study.

  --space=FILE            a Python file with suggest(trial), such as configs/spaces/optimiser.py
  --base=FILE             a configuration, such as configs/demo.py; it is the first trial
  --trials=N              trials in all; may be raised later
  --batch=N               trials that are trained as one program; default 8
  --objective={OBJECTIVE}  the only one
  --metric=NAME           of the objective: {", ".join(METRICS)}; default {METRICS[0]}
  --workdir=DIR           default runs/search_<name of the space>
  --seed=N                of what Optuna draws; default 0
  --take_over=HOST        go on with the batches of a host that is gone for good
  --config.KEY=V          changes a key of the configuration, of all trials"""

_VALUES = (
    "space", "base", "trials", "batch", "objective", "metric", "workdir", "seed", "take_over",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """A checked command line; see `USAGE`."""

    space: Path
    base: Path
    config: ml_collections.ConfigDict
    trials: int
    batch: int
    metric: str
    workdir: Path
    seed: int
    take_over: str
    command: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options | None:
    """Reads `argv`, whose first element is the program's name; None after printing the help."""
    found = parsed(argv, USAGE, _VALUES)
    if found is None:
        return None
    given, keys = found
    for name, example in (("space", "configs/spaces/optimiser.py"), ("base", "configs/demo.py")):
        if not getattr(given, name):
            raise UserError(f"--{name} is missing: give one, such as --{name}={example}")
    if given.trials is None:
        raise UserError("--trials is missing: give how many there are to be, such as --trials=64")
    _check_objective(given.objective or OBJECTIVE)
    metric = given.metric or METRICS[0]
    _check_metric(metric)
    space = Path(given.space)
    workdir = given.workdir or f"runs/search_{space.stem}"
    if in_bucket(workdir):
        raise UserError(
            f"--workdir={workdir}: the journal of a study is appended to, which a bucket cannot: "
            "give a folder that all hosts see"
        )
    return Options(
        space=space,
        base=Path(given.base),
        config=base_of(argv[0], given.base, keys),
        trials=whole("trials", given.trials, 1),
        batch=whole("batch", given.batch or "8", 1),
        metric=metric,
        workdir=Path(workdir),
        seed=whole("seed", given.seed or "0", 0),
        take_over=given.take_over or "",
        command=tuple(map(str, argv)),
    )


def _check_objective(name: str) -> None:
    if name != OBJECTIVE:
        raise UserError(
            f"--objective={name}: there is only {OBJECTIVE}, of good images that are kept from "
            "training with defects drawn into them; a test metric is none, for nothing may be "
            "chosen on test data"
        )


def _check_metric(name: str) -> None:
    if "test" in name.lower():
        raise UserError(
            f"--metric={name}: nothing may be chosen on test data; of {OBJECTIVE} there are "
            f"{', '.join(METRICS)}"
        )
    if name not in METRICS:
        raise UserError(f"--metric={name}: must be one of {OBJECTIVE}'s, {', '.join(METRICS)}")
