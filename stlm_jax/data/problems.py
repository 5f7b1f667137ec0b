"""What is wrong with a data set, as far as its folders and tables show without opening an image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stlm_jax.data.records import Listing, Record


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what sort of thing, in a word or two.
        text: one line that names the file or folder.
        fatal: whether a run of training and evaluation would stop at it.
    """

    kind: str
    text: str
    fatal: bool = False


def fatal(problems: Iterable[Problem]) -> list[Problem]:
    """Those that a run would stop at."""
    return [problem for problem in problems if problem.fatal]


def is_used(record: Record) -> bool:
    """Whether a run of training, calibration and evaluation opens the image."""
    return record.split != "unused"


def of_listing(
    category: str, listing: Listing, mask_name: str, batch_size: int, skip: bool = False
) -> list[Problem]:
    """What the listing of a category shows.

    Args:
        category: its name.
        listing: what there is of it.
        mask_name: how its masks are named, for the text.
        batch_size: images that training needs at least.
        skip: whether a run leaves out images that it cannot read.
    """
    count = sum(record.split == "train" for record in listing.records)
    return [
        *_too_few(category, count, batch_size),
        *(Problem("empty folder", f"{folder} holds no image") for folder in listing.empty),
        *_missing_files(listing.records, skip),
        *_missing_masks(category, listing.records, mask_name),
        *(Problem("mask extra", f"{mask} belongs to no image") for mask in listing.stray_masks),
    ]


def _too_few(category: str, count: int, batch_size: int) -> list[Problem]:
    if not count:
        return [Problem("empty category", f"{category}: there is no image to train on", fatal=True)]
    if count < batch_size:
        text = (
            f"{category}: {count} training images are fewer than config.train.batch_size="
            f"{batch_size}"
        )
        return [Problem("few images", text, fatal=True)]
    return []


def _missing_files(records: Sequence[Record], skip: bool) -> list[Problem]:
    problems = []
    for record in records:
        if not record.image.is_file():
            text = f"{record.image} does not exist"
            problems.append(Problem("image missing", text, is_used(record) and not skip))
        for mask in record.masks:
            if not mask.is_file():
                text = f"{mask} does not exist: it is the ground truth of {record.image}"
                problems.append(Problem("mask missing", text, record.split == "test"))
    return problems


def _missing_masks(category: str, records: Sequence[Record], mask_name: str) -> list[Problem]:
    test = [record for record in records if record.split == "test"]
    if not test:
        return [
            Problem("no test", f"{category}: there is no image to test on, nothing to evaluate")
        ]
    by_defect: dict[str, list[Record]] = {}
    for record in test:
        if record.label:
            by_defect.setdefault(record.defect, []).append(record)
    problems = []
    for defect, images in by_defect.items():
        without = [record for record in images if record.mask is None]
        if len(without) == len(images):
            text = f"{category}: none of {len(images)} images of {defect} has a mask ({mask_name})"
            problems.append(Problem("no masks", text))
        else:
            problems += [
                Problem("mask missing", f"{record.image} has no mask ({mask_name})")
                for record in without
            ]
    return problems
