"""Mean and standard deviation of evaluated runs that differ in nothing but their seed.

python -m stlm_jax.over_seeds RUN RUN … --out=DIR

RUN is a --workdir. DIR gets table.md, table.csv and seeds.json, which holds every run's numbers.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stlm_jax import details, run_info, strict_json, tables
from stlm_jax.config_checks import flatten
from stlm_jax.errors import UserError
from stlm_jax.evaluate import RESULTS
from stlm_jax.files import write_atomically
from stlm_jax.tables import percent

JSON_NAME = "seeds.json"
BAD_INPUT = 2


class Spread(NamedTuple):
    """A metric over seeds, fractions of 1.

    Attributes:
        mean: over the runs; nan where one has no value.
        std: the sample standard deviation (n − 1); nan likewise.
        values: of every run.
    """

    mean: float
    std: float
    values: list[float]

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of two values or more."""
        if any(map(math.isnan, values)):
            return cls(math.nan, math.nan, values)
        return cls(statistics.fmean(values), statistics.stdev(values), values)


class _Run(NamedTuple):
    folder: Path
    settings: dict[str, Any]  # all that must be equal, by key
    seed: int
    results: dict[str, dict[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Tabulate the runs that the command line `argv` (the program's name first) names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the workdir of an evaluated run")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    arguments = parser.parse_args(None if argv is None else list(argv)[1:])
    try:
        print(over_seeds(arguments.runs, arguments.out), end="")
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return 0


def over_seeds(folders: Sequence[str | Path], out: str | Path) -> str:
    """Write the mean and deviation of runs over their seeds; returns the Markdown.

    Args:
        folders: the workdirs of two runs or more.
        out: the folder to write to, made when absent.

    Raises:
        UserError: fewer runs, one is not evaluated, two have the same seed, or they differ in
            another key of the configuration or in how or what was evaluated.
    """
    if len(folders) < 2:
        raise UserError("give two runs or more, which differ in --config.seed")
    runs = [_read(Path(folder)) for folder in folders]
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
    text = _markdown(spreads, seeds)
    write_atomically(Path(out) / tables.TABLE_NAME, text)
    write_atomically(Path(out) / tables.CSV_NAME, _csv(spreads))
    content = {
        "seeds": seeds,
        "runs": [str(run.folder) for run in runs],
        "results": {
            category: {metric: spread._asdict() for metric, spread in values.items()}
            for category, values in spreads.items()
        },
    }
    write_atomically(Path(out) / JSON_NAME, strict_json.text(content))
    return text


def _read(folder: Path) -> _Run:
    config = flatten(run_info.read_config(folder / run_info.CONFIG_NAME))
    settings = {f"config.{key}": value for key, value in config.items() if key != "seed"}
    settings |= details.read_protocol(folder / RESULTS / details.NAME)
    results = tables.read_results(folder / RESULTS / tables.JSON_NAME)
    for category, values in results.items():
        settings[f"metrics of {category}"] = list(values)
    return _Run(folder, settings, config.get("seed", 0), results)


def _check_alike(first: _Run, run: _Run) -> None:
    for key in dict.fromkeys([*first.settings, *run.settings]):
        here, there = (one.settings.get(key, "absent") for one in (first, run))
        if here != there:
            raise UserError(
                f"{run.folder} differs from {first.folder} in {key}, which is {there}, not {here}: "
                "only config.seed may differ"
            )


def _markdown(spreads: dict[str, dict[str, Spread]], seeds: list[int]) -> str:
    rows = [
        [name, *("-" if math.isnan(s.mean) else f"{percent(s.mean)} ± {percent(s.std)}"
                 for s in values.values())]
        for name, values in spreads.items()
    ]  # fmt: skip
    rows[-1][0] = f"**{rows[-1][0]}**"
    named = ", ".join(map(str, seeds))
    return (
        tables.align([["category", *map(tables.heading, spreads[tables.MEAN])], *rows])
        + f"\nMean ± sample standard deviation over {len(seeds)} seeds ({named}), in per cent."
        + f"\n\n{tables.PAPER}\n"
    )


def _csv(spreads: dict[str, dict[str, Spread]]) -> str:
    headings = ["category"]
    for metric in spreads[tables.MEAN]:
        headings += [tables.heading(metric), f"{tables.heading(metric)} std"]
    rows = [headings]
    for name, values in spreads.items():
        numbers = (number for spread in values.values() for number in (spread.mean, spread.std))
        rows.append([name, *("" if math.isnan(n) else percent(n) for n in numbers)])
    return tables.as_csv(rows)


if __name__ == "__main__":
    sys.exit(main())
