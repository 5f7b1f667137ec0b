"""What is in the files of a data set: every image and mask opened once."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stlm_jax.data.images import (
    ImageError,
    holds_class_numbers,
    mask_of,
    mode_of,
    read_image,
    read_mask_values,
)
from stlm_jax.data.problems import Problem, is_used
from stlm_jax.data.records import File, Record
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.progress import track


@dataclass(frozen=True)
class Facts:
    """What the files of a record hold.

    Attributes:
        record: the record.
        size: width and height of the image, upright; None where it cannot be read.
        mode: the file's own, as PIL names it; empty where it cannot be read.
        digest: of the decoded pixels; empty where they cannot be read.
        problems: what is wrong with the image or its masks.
    """

    record: Record
    size: tuple[int, int] | None = None
    mode: str = ""
    digest: str = ""
    problems: list[Problem] = field(default_factory=list)


def inspect_all(records: Sequence[Record], skip: bool) -> list[Facts]:
    """The facts of every record, in order; with `skip` a run leaves out unreadable images."""
    facts = in_threads(lambda record: inspect(record, skip), records)
    return list(track(facts, "check", len(records)))


def inspect(record: Record, skip: bool) -> Facts:
    """Decodes a record's image and masks; files that do not exist are passed over."""
    if not record.image.is_file():
        return Facts(record)
    try:
        pixels = read_image(record.image, None)
        mode = mode_of(record.image)
    except ImageError as error:
        return Facts(record, problems=[_unreadable(error, is_used(record) and not skip)])
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16)
    problems = _mask_problems(record, (height, width))
    return Facts(record, (width, height), mode, digest.hexdigest(), problems)


def duplicates(facts: Sequence[Facts]) -> Iterator[Problem]:
    """Images to test on whose pixels are those of an image to train or calibrate on."""
    images: dict[tuple[str, str], File] = {}
    for fact in facts:
        if fact.digest and fact.record.split != "test":
            images.setdefault((fact.record.category, fact.digest), fact.record.image)
    for fact in facts:
        twin = images.get((fact.record.category, fact.digest))
        if twin is not None and fact.record.split == "test":
            yield Problem("duplicate", f"{fact.record.image} has the same pixels as {twin}")


def _unreadable(error: ImageError, fatal: bool) -> Problem:
    kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
    return Problem(kind, str(error), fatal)


def _mask_problems(record: Record, shape: tuple[int, int]) -> list[Problem]:
    problems = []
    marked = False
    shapes = set()
    masks = [mask for mask in record.masks if mask.is_file()]
    for mask in masks:
        try:
            values = read_mask_values(mask)
        except ImageError as error:
            problems.append(_unreadable(error, record.split == "test"))
            marked = True  # for all that is known
            continue
        if values.shape != shape:
            text = f"{mask} is {_size(values.shape)}, its image {_size(shape)}"
            problems.append(Problem("mask size", text))
        ends = (values == 0) | (values == values.max())
        if not (holds_class_numbers(values) or ends.all()):
            problems.append(Problem("mask not binary", f"{mask} holds more than two values"))
        marked |= bool(mask_of(values).any())
        shapes.add(values.shape)
    if len(shapes) > 1:
        text = f"the masks of {record.image} differ in size: they cannot be joined"
        problems.append(Problem("mask size", text, record.split == "test"))
    if masks and not marked:
        problems.append(Problem("mask empty", f"{masks[0]} marks no pixel of a defective image"))
    return problems


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
