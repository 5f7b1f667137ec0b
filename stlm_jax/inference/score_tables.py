"""`scores.csv` and `scores.json` of a prediction, written row by row."""

import contextlib
import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stlm_jax.runtime.files import json_text, open_atomically
from stlm_jax.workdir import SCORES_CSV, SCORES_JSON


@contextlib.contextmanager
def score_tables(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What adds a row to both tables, which are in `folder` once this context is left.

    All rows have the keys of the first. After an exception neither table is there, or the old one.
    """
    csv_path, json_path = folder / SCORES_CSV, folder / SCORES_JSON
    with open_atomically(csv_path) as table, open_atomically(json_path) as listing:
        begun = False

        def add(row: Mapping[str, Any]) -> None:
            nonlocal begun
            text = io.StringIO()
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            if not begun:
                writer.writeheader()
            writer.writerow(row)
            table.write(text.getvalue().encode())
            listing.write(b",\n" if begun else b"[\n")
            listing.write(textwrap.indent(json_text(row).rstrip(), "  ").encode())
            begun = True

        yield add
        listing.write(b"\n]\n" if begun else b"[]\n")
