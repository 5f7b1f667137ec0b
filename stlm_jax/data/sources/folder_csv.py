"""A user's own images, named one by one in a table.

image     the file, relative to `data.root`, or to the table where there is no root
split     train | validation | test
label     0, good or normal | 1, bad, defect, anomaly or anomalous; optional
mask      ground-truth file; optional
defect    name of the defect type; optional
category  name of the part; optional

Without a label an image is good where it is for training or validation and anomalous where a
defect or a mask is named; an image to test must have one of the three. Anomalous images among
those for training are listed as `unused`; those for validation let the threshold be the one of the
best F1.
"""

from dataclasses import dataclass

from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import DEFECT, GOOD, check_category
from stlm_jax.data.sources.table import read_table
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

_SPLITS = ("train", "validation", "test")
_LABELS = {
    "0": 0, "good": 0, "normal": 0,
    "1": 1, "bad": 1, "defect": 1, "anomaly": 1, "anomalous": 1,
}  # fmt: skip


@dataclass(frozen=True)
class CsvTable:
    """The images that a table names."""

    path: str
    root: str  # folder that its paths are relative to; empty for the table's own
    category: str  # of the rows that name none

    def find_categories(self) -> list[str]:
        """The parts that the table names, in its order."""
        names = list(dict.fromkeys(self._name(row) for _, row in self._rows()))
        if not names:
            raise UserError(f"config.data.csv: {self.path} names no image: add a line for each")
        return names

    def scan(self, category: str) -> Listing:
        """The rows of a part, in the table's order."""
        check_category(self.path, category, self.find_categories())
        rows = [(line, row) for line, row in self._rows() if self._name(row) == category]
        return Listing([self._record(line, row) for line, row in rows])

    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        return read_table(path_of(self.path), ("image", "split"))

    def _name(self, row: dict[str, str]) -> str:
        return row.get("category", "") or self.category

    def _record(self, line: int, row: dict[str, str]) -> Record:
        where = f"{self.path}: line {line}"
        base = path_of(self.root) if self.root else path_of(self.path).parent
        split, defect, mask = row["split"].lower(), row.get("defect", ""), row.get("mask", "")
        if not row["image"]:
            raise UserError(f"{where}: image is empty: name a file")
        if split not in _SPLITS:
            raise UserError(f"{where}: split is {row['split']!r}: must be {', '.join(_SPLITS)}")
        label = self._label(where, row.get("label", "").lower(), split, defect, mask)
        if not label:
            return Record(base / row["image"], None, 0, GOOD, self._name(row), split)
        truth = base / mask if mask else None
        split = "unused" if split == "train" else split
        return Record(base / row["image"], truth, 1, defect or DEFECT, self._name(row), split)

    def _label(self, where: str, label: str, split: str, defect: str, mask: str) -> int:
        if label:
            if label not in _LABELS:
                raise UserError(f"{where}: label is {label!r}: must be {', '.join(_LABELS)}")
            return _LABELS[label]
        if defect or mask:
            return int(defect.lower() != GOOD)
        if split == "test":
            raise UserError(f"{where}: an image to test needs a label, a defect or a mask")
        return 0
