"""How a search ends: the table of its trials, and what the chosen setting finds on test images."""

import datetime
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launch.tuning.batches import DEFAULT, Batch, all_batches, result_of
from launch.tuning.folders import BATCHES, STUDY, read_json, run_name
from launch.tuning.study import Study, names_of
from stlm_jax.evaluation.results import MEAN
from stlm_jax.report.tables import align, as_csv, heading, percent, read_results
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically, write_json
from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.progress import note
from stlm_jax.workdir import METRICS, RESULTS

TRIALS = "trials.csv"
TABLE, TABLE_JSON = "table.md", "table.json"
EVALUATE = (sys.executable, "-m", "stlm_jax.main", "--mode=evaluate")
_FIRST = (
    "The setting was chosen on pseudo_validation alone: no model of this search had been shown a "
    "test image before."
)


class Chosen(NamedTuple):
    """A run that the final table shows.

    Attributes:
        row: what it is called there.
        folder: its work folder.
        value: of the objective; nan where its training diverged.
    """

    row: str
    folder: Path
    value: float


def write_trials(study: Study, workdir: Path, metric: str) -> None:
    """Writes `trials.csv`: a line for each trial, whatever became of it."""
    trials = study.trials()
    names = names_of(trials)
    rows = [["trial", "state", metric, *names, "begun", "ended", "diverged"]]
    for trial in trials:
        value = "" if trial.value is None else repr(trial.value)
        times = (trial.datetime_start, trial.datetime_complete)
        begun, ended = ("" if t is None else t.isoformat(timespec="seconds") for t in times)
        values = [str(trial.params.get(name, "")) for name in names]
        reason = trial.user_attrs.get("diverged", "")
        rows.append([str(trial.number), trial.state.name, value, *values, begun, ended, reason])
    write_atomically(workdir / STUDY / TRIALS, as_csv(rows))


def conclude(study: Study, workdir: Path, metric: str, default: bool) -> str:
    """The final table, and its files; what was evaluated on test images before is not again.

    Args:
        study: of the search, all of whose trials have ended.
        workdir: of the search.
        metric: that trials were chosen by.
        default: whether the base is the first trial; else it is a run of its own.
    """
    trials = study.trials()
    best = study.best()
    if best is None:
        raise UserError(
            f"all {len(trials)} trials diverged: there is nothing to choose; narrow the space"
        )
    rows = _rows(study, workdir, metric, best, default)
    path = workdir / STUDY / TABLE_JSON
    earlier = read_json(path)["choices"] if path.is_file() else []
    if not earlier or earlier[-1]["trials"] != len(trials):
        choice = {
            "trials": len(trials),
            "chosen": best.number,
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "evaluated_before": _evaluated(workdir),
        }
        earlier = [*earlier, choice]
        # Before the first test image is looked at, so that whatever happens it is known.
        write_json(path, {"metric": metric, "choices": earlier})
    measured = {row.row: _tested(row) for row in rows}
    said = _said(earlier)
    table = _table(metric, rows, measured)
    chosen = _chosen(workdir, best.number)
    text = f"{table}\n{said} {chosen}\n"
    write_atomically(workdir / STUDY / TABLE, text)
    content = {
        "metric": metric,
        "choices": earlier,
        "said": said,
        "rows": {
            row.row: {
                "workdir": str(row.folder),
                "pseudo_validation": row.value,
                "test": measured[row.row],
            }
            for row in rows
        },
    }
    write_json(path, content)
    return text


def _rows(study: Study, workdir: Path, metric: str, best: Any, default: bool) -> list[Chosen]:
    """The default's row and the chosen one's, one row where they are the same."""
    chosen = Chosen(f"chosen, trial {best.number}", _folder(workdir, best.number), best.value)
    if default:
        first = study.trials()[0]
        if first.number == best.number:
            return [chosen._replace(row="default, which is the chosen")]
        value = math.nan if first.value is None else first.value
        return [Chosen("default, trial 0", _folder(workdir, 0), value), chosen]
    folder = all_batches(workdir)[0].folder / DEFAULT
    result = result_of(folder) or {}
    value = result.get("metrics", {}).get(metric, math.nan)
    return [Chosen("default, outside the space", folder, value), chosen]


def _batch_of(workdir: Path, number: int) -> Batch:
    for batch in all_batches(workdir):
        if number in batch.numbers.values():
            return batch
    raise UserError(f"{workdir}: the batch of trial {number} is missing: use another --workdir")


def _folder(workdir: Path, number: int) -> Path:
    return _batch_of(workdir, number).folder / run_name(number)


def _tested(row: Chosen) -> dict[str, float]:
    """Means over the categories of the test metrics; none where the training diverged."""
    if math.isnan(row.value):
        return {}
    path = row.folder / RESULTS / METRICS
    if not path.is_file():
        note(f"evaluating {row.row} on the test images")
        # In a session of its own: Ctrl-C is for this process, which passes it on once.
        process = subprocess.Popen(
            [*EVALUATE, f"--workdir={row.folder}"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise Interrupted("stopped; run the same command again to go on") from None
        if status:
            raise UserError(f"the evaluation of {row.folder} ended with status {status}, see above")
    return read_results(path)[MEAN] if path.is_file() else {}


def _evaluated(workdir: Path) -> list[str]:
    """The runs that have test metrics already."""
    return sorted(p.parents[1].name for p in workdir.glob(f"{BATCHES}/*/*/{RESULTS}/{METRICS}"))


def _said(choices: Sequence[dict[str, Any]]) -> str:
    by_hand = choices[0]["evaluated_before"]
    if len(choices) == 1 and not by_hand:
        return _FIRST
    if len(choices) == 1:
        return (
            "The setting was chosen on pseudo_validation alone, but test metrics of "
            f"{', '.join(by_hand)} had been computed before the search was over."
        )
    before = ", ".join(f"of {each['trials']} (trial {each['chosen']})" for each in choices[:-1])
    return (
        f"The setting was chosen on pseudo_validation alone, but test metrics had been looked at "
        f"before, of the choice {before} and of the default: whoever then went on may have been "
        "led by them."
    )


def _table(metric: str, rows: Sequence[Chosen], measured: dict[str, dict[str, float]]) -> str:
    every = dict.fromkeys(name for values in measured.values() for name in values)
    names = [
        name for name in every if not name.endswith("_without_fa")
    ]  # in the JSON, too wide here
    headings = ["", f"pseudo-validation {heading(metric)}", *(f"test {heading(n)}" for n in names)]
    lines = [
        [
            row.row,
            percent(row.value),
            *(percent(measured[row.row].get(name, math.nan)) for name in names),
        ]
        for row in rows
    ]
    return align([headings, *lines])


def _chosen(workdir: Path, number: int) -> str:
    """What the chosen trial changes."""
    changes = _batch_of(workdir, number).settings[run_name(number)]
    return f"Chosen: `{' '.join(f'--config.{key}={value}' for key, value in changes.items())}`"
