"""Tables in text files: comma-separated, with a line of column names first."""

import csv
from collections.abc import Iterable
from pathlib import Path

from stlm_jax.runtime.errors import UserError


def read_table(path: Path, required: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with the numbers of their lines, without empty rows.

    Column names are read without regard to case and values without the spaces around them; a
    value that a short row leaves out is empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip().lower() for name in next(reader, [])]
            rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as a table ({error}): replace the file") from error
    missing = [name for name in required if name not in columns]
    if missing:
        raise UserError(
            f"{path}: the first line must name the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; it names {', '.join(columns) or 'none'}"
        )
    named = []
    for line, row in rows:
        if len(row) > len(columns):
            raise UserError(f"{path}: line {line} has {len(row)} values for {len(columns)} columns")
        if any(row):
            named.append((line, dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False))))
    return named
