"""The command line of the search."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import ml_collections

from stlm_jax import settings
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parse(argv: Sequence[str]) -> Options | None:
    """Reads `argv`, whose first element is the program's name; None after printing the help."""
    arguments = [str(part) for part in argv[1:]]
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return None
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in _VALUES:
        parser.add_argument(f"--{name}")
    given, rest = parser.parse_known_args(arguments)
    for argument in rest:
        if not argument.startswith("--config."):
            raise UserError(f"unknown argument {argument!r}: see --help")
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
    read = settings.parse([argv[0], f"--config={given.base}", *rest])
    assert read is not None
    return Options(
        space=space,
        base=Path(given.base),
        config=_without_ensemble(read.config),
        trials=_whole("trials", given.trials, 1),
        batch=_whole("batch", given.batch or "8", 1),
        metric=metric,
        workdir=Path(workdir),
        seed=_whole("seed", given.seed or "0", 0),
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


def _without_ensemble(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The base, which is to be one run: the trials are the ensemble."""
    for name in ("seeds", "settings"):
        if config.ensemble[name]:
            raise UserError(
                f"--base: config.ensemble.{name} makes several runs of it, and the search makes "
                "its own: take it away"
            )
    return config


def _whole(name: str, text: str, least: int) -> int:
    if not text.isdecimal() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}: must be a whole number of {least} or more")
    return int(text)
