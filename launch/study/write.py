"""What a study leaves in its folder: `table.md`, `table.csv` and `report.html`."""

import os
from collections.abc import Sequence

from launch.study import table
from launch.study.comparison import compare
from launch.study.report import write_report
from launch.study.trial import Study, Trial
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.workdir import REPORT, TABLE, TABLE_CSV


def write_study(folder: str | os.PathLike, study: Study, trials: Sequence[Trial]) -> str:
    """Writes the tables and the report of a study, of which some trials may not be done.

    Args:
        folder: made when absent.
        study: what was planned.
        trials: as far as they are known; those that are not among them are missing.

    Returns:
        The Markdown of `table.md`.
    """
    folder, comparison = path_of(folder), compare(study, trials)
    text = table.markdown(comparison)
    write_atomically(folder / TABLE, text)
    write_atomically(folder / TABLE_CSV, table.comma_separated(comparison))
    try:
        write_report(folder / REPORT, comparison)
    except UserError as error:  # the report needs optional libraries, the numbers do not
        note(f"no report: {error}")
    return text
