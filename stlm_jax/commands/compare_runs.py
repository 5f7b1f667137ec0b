"""Mean and standard deviation of evaluated runs that differ in nothing but their seed.

python -m stlm_jax.commands.compare_runs RUN RUN … --out=DIR

RUN is a --workdir. DIR gets table.md, table.csv and seeds.json, which holds every run's numbers.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stlm_jax.config import flatten
from stlm_jax.evaluation.results import MEAN
from stlm_jax.report import details_json, tables
from stlm_jax.report.spread import Spread
from stlm_jax.report.tables import percent
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import STOPPED, exit_status
from stlm_jax.runtime.files import write_atomically, write_json
from stlm_jax.runtime.paths import path_of
from stlm_jax.workdir import CONFIG, DETAILS, METRICS, RESULTS, SEEDS, TABLE, TABLE_CSV, read_config


class _Run(NamedTuple):
    folder: Path
    settings: dict[str, Any]  # all that must be equal, by key
    seed: int
    results: dict[str, dict[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Tabulates the runs that `argv` (the program's name first) names; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the workdir of an evaluated run")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    arguments = parser.parse_args(None if argv is None else list(argv)[1:])
    return exit_status(lambda: print(compare_runs(arguments.runs, arguments.out), end=""), STOPPED)


def compare_runs(folders: Sequence[str | Path], out: str | Path) -> str:
    """Writes the mean and deviation of two runs or more over their seeds; returns the Markdown.

    Refused are runs of the same seed, and runs that differ in another key of the configuration or
    in how or what was evaluated. `folders` are workdirs; the folder `out` is made when absent.
    """
    if len(folders) < 2:
        raise UserError("give two runs or more, which differ in --config.seed")
    runs = [_read(path_of(folder)) for folder in folders]
    for index, run in enumerate(runs):
        _check_alike(runs[0], run)
        for other in runs[:index]:
            if run.seed == other.seed:
                raise UserError(f"{other.folder} and {run.folder} both have config.seed={run.seed}")
    spreads = {
        category: {
            metric: Spread.of([run.results[category][metric] for run in runs]) for metric in values
        }
        for category, values in runs[0].results.items()
    }
    seeds = [run.seed for run in runs]
    paper = tables.paper_line(runs[0].settings.get("config.data.source", ""))
    text = _markdown(spreads, seeds, paper)
    write_atomically(path_of(out) / TABLE, text)
    write_atomically(path_of(out) / TABLE_CSV, _csv(spreads))
    content = {
        "seeds": seeds,
        "runs": [str(run.folder) for run in runs],
        "results": {
            category: {metric: spread._asdict() for metric, spread in values.items()}
            for category, values in spreads.items()
        },
    }
    write_json(path_of(out) / SEEDS, content)
    return text


def _read(folder: Path) -> _Run:
    config = flatten(read_config(folder / CONFIG))
    settings = {f"config.{key}": value for key, value in config.items() if key != "seed"}
    settings |= details_json.read_protocol(folder / RESULTS / DETAILS)
    results = tables.read_results(folder / RESULTS / METRICS)
    for category, values in results.items():
        settings[f"metrics of {category}"] = list(values)
    return _Run(folder, settings, config.get("seed", 0), results)


def _check_alike(first: _Run, run: _Run) -> None:
    for key in dict.fromkeys([*first.settings, *run.settings]):
        here, there = (r.settings.get(key, "absent") for r in (first, run))
        if here != there:
            raise UserError(
                f"{run.folder} differs from {first.folder} in {key}, which is {there}, not {here}: "
                "only config.seed may differ"
            )


def _markdown(spreads: dict[str, dict[str, Spread]], seeds: list[int], paper: str) -> str:
    rows = [
        [name, *(spread.text for spread in values.values())] for name, values in spreads.items()
    ]
    rows[-1][0] = f"**{rows[-1][0]}**"
    listed = ", ".join(map(str, seeds))
    return (
        tables.align([["category", *map(tables.heading, spreads[MEAN])], *rows])
        + f"\nMean ± sample standard deviation over {len(seeds)} seeds ({listed}), in per cent."
        + (f"\n\n{paper}\n" if paper else "\n")
    )


def _csv(spreads: dict[str, dict[str, Spread]]) -> str:
    headings = ["category"]
    for metric in spreads[MEAN]:
        headings += [tables.heading(metric), f"{tables.heading(metric)} std"]
    rows = [headings]
    for name, values in spreads.items():
        numbers = (number for spread in values.values() for number in (spread.mean, spread.std))
        rows.append([name, *("" if math.isnan(n) else percent(n) for n in numbers)])
    return tables.as_csv(rows)


if __name__ == "__main__":
    sys.exit(main())
