"""The command line of the sweep."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from launch.arguments import base_of, parsed, whole
from launch.study.packs import seeds_of
from launch.study.studies import Settings, read_studies
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

USAGE = """\
usage: python -m launch.sweep --config=FILE:STUDY --base=FILE [options] [--config.KEY=V]

Trains every setting of a study with every seed, those that differ in numbers alone in one program
that shares the teacher, and writes WORKDIR/study/: table.md, table.csv, report.html. Started again
it goes on with what is missing.

  --config=FILE:STUDY     such as configs/ablations.py:components
  --base=FILE             the configuration that its settings change, such as configs/demo.py
  --workdir=DIR           default: runs/STUDY
  --seeds=N|A,B,C         how many, 3, or which
  --executor=KIND         local (default): here, --parallel packs at a time, 1; slurm: a job each;
                          print: nothing is run, the commands are printed
  --slurm.NAME=VALUE      of sbatch, by submitit: partition, gpus_per_node, timeout_min, mem_gb, …
  --baseline=SETTING      what the others are compared with; default: the study's first
  --note=TEXT             a line for the report
  --dry_run               lists the packs, what they take, and what would be skipped
  --config.KEY=V          changes a key of the base configuration"""

_SLURM = "--slurm."
EXECUTORS = ("local", "slurm", "print")
_VALUES = ("config", "base", "workdir", "seeds", "executor", "parallel", "baseline", "note")


@dataclasses.dataclass(frozen=True)
class Options:
    """A checked command line; see `USAGE`."""

    study: str
    settings: Settings
    config: ml_collections.ConfigDict
    base: tuple[str, ...]  # options of `stlm_jax.main`
    workdir: Path
    seeds: tuple[int, ...]
    executor: str
    parallel: int
    slurm: dict[str, str]
    baseline: str
    notes: tuple[str, ...]
    dry_run: bool
    command: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options | None:
    """Reads `argv`, whose first element is the program's name; None after printing the help."""
    found = parsed(argv, USAGE, _VALUES, ("dry_run",), lambda part: part.startswith(_SLURM))
    if found is None:
        return None
    given, rest = found
    slurm, overrides = _slurm(rest), [part for part in rest if not part.startswith(_SLURM)]
    if not given.config or not given.base:
        raise UserError(
            "give a study and what it changes: --config=configs/ablations.py:components "
            "--base=configs/demo.py"
        )
    base = (f"--config={given.base}", *overrides)
    config = base_of(argv[0], given.base, overrides)
    study, settings = read_studies(given.config, config)
    baseline = given.baseline or next(iter(settings))
    if baseline not in settings:
        raise UserError(f"--baseline={baseline}: the study has {', '.join(settings)}")
    executor = given.executor or EXECUTORS[0]
    if executor not in EXECUTORS:
        raise UserError(f"--executor={executor}: must be one of {', '.join(EXECUTORS)}")
    if slurm and executor != "slurm":
        raise UserError(f"--slurm.{next(iter(slurm))}: is for --executor=slurm")
    if given.workdir == "":
        raise UserError("--workdir: the value is missing")
    return Options(
        study=study,
        settings=settings,
        config=config,
        base=base,
        workdir=path_of(given.workdir) if given.workdir else Path("runs") / study,
        seeds=_distinct(seeds_of(given.seeds or "3")),
        executor=executor,
        parallel=_parallel(given.parallel, executor),
        slurm=slurm,
        baseline=baseline,
        notes=(given.note,) if given.note else (),
        dry_run=given.dry_run,
        command=tuple(argv),
    )


def _slurm(arguments: Sequence[str]) -> dict[str, str]:
    found = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.startswith(_SLURM):
            if not value:
                raise UserError(f"{name}: the value is missing, {name}=VALUE")
            found[name.removeprefix(_SLURM)] = value
    return found


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={','.join(map(str, seeds))}: names one twice")
    return seeds


def _parallel(text: str | None, executor: str) -> int:
    if text is None:
        return 1 if executor == "local" else 10_000
    return whole("parallel", text, 1)
