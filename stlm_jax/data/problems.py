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
        training: whether only training would, not an evaluation of what is trained.
    """

    kind: str
    text: str
    fatal: bool = False
    training: bool = False


def fatal(problems: Iterable[Problem]) -> list[Problem]:
    """Those that a run would stop at."""
    return [problem for problem in problems if problem.fatal]


def is_used(record: Record) -> bool:
    """Whether a run of training, calibration and evaluation opens the image."""
    return record.split != "unused"


def of_listing(
    category: str, listing: Listing, mask_name: str, batch_size: int, skip: bool
) -> list[Problem]:
    """What the listing of a category shows.

    `mask_name` says how its masks are named; with `skip` a run leaves out images that it cannot
    read.
    """
    count = sum(record.split == "train" for record in listing.records)
    text = f"{category}: there is no image to train on"
    nothing = Problem("empty category", text, fatal=True, training=True)
    return [
        *(few_images(category, count, batch_size) if count else [nothing]),
        *(Problem("empty folder", f"{folder} holds no image") for folder in listing.empty),
        *_missing_files(listing.records, skip),
        *_missing_masks(category, listing.records, mask_name),
        *(Problem("mask extra", f"{mask} belongs to no image") for mask in listing.stray_masks),
    ]


def few_images(
    category: str, count: int, batch_size: int, what: str = "training images"
) -> list[Problem]:
    """That so many images to train on are fewer than a batch; empty where they are not."""
    if count >= batch_size:
        return []
    text = f"{category}: {count} {what} are fewer than config.train.batch_size={batch_size}"
    return [Problem("few images", text, fatal=True, training=True)]


def _missing_files(records: Sequence[Record], skip: bool) -> list[Problem]:
    problems = []
    for record in records:
        if not record.image.is_file():
            text = f"{record.image} does not exist"
            is_fatal = is_used(record) and not skip
            problems.append(Problem("image missing", text, is_fatal, record.split == "train"))
        for mask in record.masks:
            if not mask.is_file():
                text = f"{mask} does not exist: it is the ground truth of {record.image}"
                problems.append(Problem("mask missing", text, record.split == "test"))
    return problems


def _missing_masks(category: str, records: Sequence[Record], mask_name: str) -> list[Problem]:
    test = [record for record in records if record.split == "test"]
    if not test:
        text = f"{category}: there is no image to test on, nothing to evaluate"
        return [Problem("no test", text)]
    problems = []
    for defect in dict.fromkeys(record.defect for record in test if record.label):
        images = [record for record in test if record.label and record.defect == defect]
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
