"""One image of a data set and what is known about it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """An image file with its ground truth.

    Attributes:
        image: the image file.
        mask: the ground-truth file; None where every pixel is normal.
        label: 0 normal, 1 anomalous.
        defect: name of the defect type; `good` for a normal image.
        category: name of the category.
        split: `train` or `test`.
    """

    image: Path
    mask: Path | None
    label: int
    defect: str
    category: str
    split: str
