"""A study and its runs, as everything that plans, starts and reports them knows them."""

import dataclasses
import math
from pathlib import Path

DONE, DIVERGED, FAILED, MISSING = "done", "diverged", "failed", "missing"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a study: a setting and a seed.

    Attributes:
        setting: its name in `Study.settings`.
        seed: `config.seed`.
        folder: the run's workdir; it holds `results/` where the trial is done.
        state: `DONE`, `DIVERGED`, `FAILED` or `MISSING`.
        why: in a line, where it is not done.
        seconds: of training; of a program that trained several runs, this one's share.
        passes: images that the teacher was run for, likewise.
        together: how many runs were trained in one program.
    """

    setting: str
    seed: int
    folder: Path
    state: str
    why: str = ""
    seconds: float = math.nan
    passes: float = math.nan
    together: int = 1


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        name: of the study.
        baseline: the setting that all others are compared with.
        settings: what each changes, "KEY=VALUE KEY=VALUE", by name.
        seeds: that every setting is trained with.
        notes: lines that a reader must know, such as a reduced number of steps.
    """

    name: str
    baseline: str
    settings: dict[str, str]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()
