"""Reads a whole data set once and says what is in it and what is wrong with it.

python -m stlm_jax.commands.check_data --config=FILE [--config.KEY=VALUE]

The exit status is 1 where training would stop at a problem, else 0, and 2 for a wrong argument.
"""

import sys
from collections.abc import Sequence

import ml_collections

from stlm_jax.data import dataset, problems
from stlm_jax.data.inspection import Facts
from stlm_jax.data.problems import Problem
from stlm_jax.report.tables import align
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import exit_status
from stlm_jax.settings import parse

FINE, WOULD_FAIL = 0, 1

_HEADINGS = ("category", "split", "defect", "images", "masks", "sizes", "modes")
_LEFT = 3  # columns


def main(argv: Sequence[str] | None = None) -> int:
    """Checks what the command line `argv` (the program's name first) names; the exit status."""
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h"} & set(argv):
        print(__doc__, end="")
        return FINE
    return exit_status(lambda: _run(argv), "stopped")


def _run(argv: list[str]) -> int:
    settings = parse(argv)
    assert settings is not None
    try:
        return check(settings.config)
    except UserError as error:  # of the data, at which training would stop; not of the arguments
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return WOULD_FAIL


def check(config: ml_collections.ConfigDict) -> int:
    """Reads the set, prints the table and every problem; the exit status."""
    dataset.prepare(config)
    facts, all_problems = dataset.survey(config)
    print(align([_HEADINGS, *_rows(facts)], _LEFT), end="")
    _print_problems(all_problems)
    return WOULD_FAIL if problems.fatal(all_problems) else FINE


def _rows(facts: Sequence[Facts]) -> list[list[str]]:
    groups: dict[tuple[str, str, str], list[Facts]] = {}
    for fact in facts:
        record = fact.record
        groups.setdefault((record.category, record.split, record.defect), []).append(fact)
    return [[*key, *_cells(group)] for key, group in groups.items()]


def _cells(group: Sequence[Facts]) -> list[str]:
    masks = sum(bool(fact.record.masks) for fact in group)
    sizes = sorted({fact.size for fact in group if fact.size is not None})
    modes = sorted({fact.mode for fact in group if fact.mode})
    shown = [f"{width}x{height}" for width, height in sizes]
    if len(shown) > 3:
        shown = [f"{len(shown)} from {shown[0]} to {shown[-1]}"]
    return [
        str(len(group)),
        str(masks) if group[0].record.label else "",
        ", ".join(shown) or "-",
        ", ".join(modes) or "-",
    ]


def _print_problems(all_problems: Sequence[Problem]) -> None:
    if not all_problems:
        print("no problem found")
        return
    for problem in all_problems:
        weight = "error" if problem.fatal else "warning"
        print(f"{weight}: {problem.kind}: {problem.text}")
    count = len(problems.fatal(all_problems))
    print(
        f"{len(all_problems)} problem{'s' * (len(all_problems) > 1)}; "
        + (f"training would stop at {count} of them" if count else "training can run")
    )


if __name__ == "__main__":
    sys.exit(main())
