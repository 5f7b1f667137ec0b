"""The layouts of VisA (Zou et al., ECCV 2022): as it is extracted, and converted to MVTec AD's.

As extracted; the one-class split is a table, and a path in it is relative to the root:
<root>/split_csv/1cls.csv                      object,split,label,image,mask
<root>/<category>/Data/Images/Normal/*.JPG
<root>/<category>/Data/Images/Anomaly/*.JPG
<root>/<category>/Data/Masks/Anomaly/*.png     0, and from 1 up the numbers of defect classes

As converted by the authors' `prepare_data.py`:
<root>/<category>/train/good/*.JPG
<root>/<category>/test/<good or bad>/*.JPG
<root>/<category>/ground_truth/bad/<stem>.png
"""

from pathlib import Path

from stlm_jax.data.folders import StrPath, images_if_any
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import (
    GOOD,
    Reader,
    Tree,
    categories_in,
    check_category,
    masks_named,
    strays,
)
from stlm_jax.data.sources.table import read_table
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

SPLIT = Path("split_csv/1cls.csv")
ANOMALY = "anomaly"

_COLUMNS = ("object", "split", "label", "image", "mask")
_CONVERTED = Tree(find_masks=masks_named("", "_mask"))


def find_categories(root: StrPath) -> list[str]:
    """The names of the categories, sorted."""
    root = path_of(root)
    if (root / SPLIT).is_file():
        return sorted({row["object"] for _, row in read_table(root / SPLIT, _COLUMNS)})
    return categories_in(root, _CONVERTED.is_category, f"{SPLIT} and no <category>/train/good")


def scan(root: StrPath, category: str) -> Listing:
    """What there is of a category, in the order of the table or sorted by file name."""
    root = path_of(root)
    if not (root / SPLIT).is_file():
        return _CONVERTED.scan(root, category)
    check_category(root, category, find_categories(root))
    records = []
    for line, row in read_table(root / SPLIT, _COLUMNS):
        if row["object"] != category:
            continue
        where = f"{root / SPLIT}: line {line}"
        label = _number(where, "label", row["label"], ("normal", ANOMALY))
        split = ("train", "test")[_number(where, "split", row["split"], ("train", "test"))]
        image = root / row["image"]
        if not label:
            records.append(Record(image, None, 0, GOOD, category, split))
            continue
        mask = root / row["mask"] if row["mask"] else None
        split = "unused" if split == "train" else split
        records.append(Record(image, mask, 1, ANOMALY, category, split))
    masks = images_if_any(root / category / "Data" / "Masks" / "Anomaly")
    return Listing(records, strays(masks, records), folders=[root / category / "Data"])


READER = Reader(
    find_categories, scan, "Data/Masks/Anomaly/<name>.png, converted: ground_truth/bad/<name>.png"
)


def _number(where: str, column: str, value: str, names: tuple[str, str]) -> int:
    if value not in names:
        raise UserError(f"{where}: {column} is {value!r}: must be {names[0]} or {names[1]}")
    return names.index(value)
