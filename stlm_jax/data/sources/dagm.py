"""The layout of DAGM 2007 (Wieler and Hahn), read for unsupervised training.

<root>/Class1 … Class10/<Train or Test>/0001.PNG …
<root>/<class>/<Train or Test>/Label/<stem>_label.PNG   only of a defective image: an ellipse

Training takes the images of Train without a label, the test all of Test. The defective images of
Train are listed as `unused`.
"""

import re

from stlm_jax.data.folders import StrPath, images_if_any
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import (
    DEFECT,
    GOOD,
    Reader,
    categories_in,
    check_category,
    masks_named,
    strays,
)
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

_find_masks = masks_named("_label")


def find_categories(root: StrPath) -> list[str]:
    """The names of the classes, by number."""
    names = categories_in(
        root, lambda p: (p / "Train").is_dir() and (p / "Test").is_dir(), "<class>/Train and Test"
    )
    return sorted(names, key=_by_number)


def scan(root: StrPath, category: str) -> Listing:
    """What there is of a class: Train, then Test, sorted by file name."""
    check_category(root, category, find_categories(root))
    listing = Listing([])
    for folder, normal, anomalous in (("Train", "train", "unused"), ("Test", "test", "test")):
        place = path_of(root) / category / folder
        labels = place / "Label"
        if not labels.is_dir():
            # Without it a defective image could not be told from a good one.
            raise UserError(f"{labels} is missing: it says which images are defective")
        masks = _find_masks(labels)
        listing.folders.append(place)
        images = images_if_any(place)
        if not images:
            listing.empty.append(place)
        listing.records.extend(
            Record(image, masks[image.stem], 1, DEFECT, category, anomalous)
            if image.stem in masks
            else Record(image, None, 0, GOOD, category, normal)
            for image in images
        )
        listing.stray_masks.extend(strays(images_if_any(labels), listing.records))
    return listing


READER = Reader(find_categories, scan, "<Train or Test>/Label/<name>_label.PNG")


def _by_number(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    assert match
    return match[1], int(match[2] or 0)
