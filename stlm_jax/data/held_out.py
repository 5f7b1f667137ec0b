"""Good training images that are kept from training, to estimate thresholds from."""

import dataclasses
import hashlib
from collections.abc import Sequence

from stlm_jax.data.records import File, Record
from stlm_jax.data.tfds_file import StoredFile

HELD_OUT = "held_out"  # their split


def hold_out(records: Sequence[Record], share: float, seed: int, category: str) -> list[Record]:
    """The records of a category, some of those to train on moved to the split `held_out`.

    Which ones depends on the order of their names, the run's seed and the category, and on nothing
    else. At least one is moved where there are two, and one stays. Where the data set has good
    validation images of its own, or `share`, of 0..1, is 0, none is.
    """
    own = any(record.split == "validation" and not record.label for record in records)
    train = sorted((r for r in records if r.split == "train"), key=lambda r: _name(r.image))
    count = 0 if own else count_held_out(len(train), share)
    if not count:
        return list(records)

    def lot(index: int) -> bytes:  # of no generator, whose numbers a new version may change
        return hashlib.sha256(f"{seed}/{category}/{index}".encode()).digest()

    chosen = {train[index].image for index in sorted(range(len(train)), key=lot)[:count]}
    moved = [dataclasses.replace(r, split=HELD_OUT) for r in train if r.image in chosen]
    return [record for record in records if record.image not in chosen] + moved


def count_held_out(train: int, share: float) -> int:
    """How many of so many images to train on are kept from it."""
    return min(max(round(share * train), 1), train - 1) if share and train > 1 else 0


def _name(file: File) -> str:
    return file.path if isinstance(file, StoredFile) else file.as_posix()
