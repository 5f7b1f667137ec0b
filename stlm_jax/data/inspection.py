"""What is in the files of a data set: every image and mask opened once."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from stlm_jax.config.rules import DTYPE, FILE
from stlm_jax.data.frames import size_text
from stlm_jax.data.images import (
    ImageError,
    MaskSizeError,
    frames_in,
    mode_of,
    read_image,
    read_mask_file,
)
from stlm_jax.data.masks import Mask
from stlm_jax.data.problems import Problem, few_images, is_used
from stlm_jax.data.records import File, Record
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.progress import track
from stlm_jax.runtime.text import printable

_LEAST_SIDE = 8  # pixels
_MOST = 0.5  # of an image that a defect covers


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


def inspect_all(records: Sequence[Record], skip: bool, rule: str, shown_from: int) -> list[Facts]:
    """The facts of every record, in order.

    With `skip` a run leaves out unreadable images; `rule` says what counts in masks. So many
    records have a line of progress.
    """
    facts = in_threads(lambda record: inspect(record, skip, rule), records)
    is_shown = len(records) >= shown_from
    return list(track(facts, "check", len(records)) if is_shown else facts)


def inspect(record: Record, skip: bool, rule: str) -> Facts:
    """Decodes a record's image and masks; files that do not exist are passed over."""
    if not record.image.is_file():
        return Facts(record)
    try:
        pixels = read_image(record.image, None)
        mode, frames = mode_of(record.image), frames_in(record.image)
    except ImageError as error:
        return Facts(record, problems=[_unreadable(error, record, is_used(record) and not skip)])
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16)
    problems = _mask_problems(record, skip, rule)
    if min(height, width) < _LEAST_SIDE:
        text = f"{record.image} is {size_text((height, width))}: too small to show a part"
        problems.append(Problem("image size", text))
    if frames > 1:
        text = f"{record.image} holds {frames} images, of which the first is read"
        problems.append(Problem("more frames", text))
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


def mixed_depths(facts: Sequence[Facts], category: str) -> list[Problem]:
    """That images of eight bits lie among those of more: what is white in one is not in another."""
    own = [fact for fact in facts if fact.record.category == category and fact.mode]
    wide = [fact for fact in own if _is_wide(fact.mode)]
    narrow = [fact for fact in own if not _is_wide(fact.mode)]
    if not (wide and narrow):
        return []
    text = (
        f"{category}: {len(wide)} images of more than eight bits, such as {wide[0].record.image}, "
        f"and {len(narrow)} of eight, such as {narrow[0].record.image}: save all alike"
    )
    return [Problem("depth", text)]


def _is_wide(mode: str) -> bool:
    """Whether a mode, as `images.mode_of` gives it, has more than eight bits a channel."""
    return mode[0] in "IF" or ";" in mode


def unlike_training(files: Sequence[File], depth: str) -> str:
    """What is to be said of images whose bits are unlike those trained on; '' where all are alike.

    Args:
        files: the images.
        depth: that of the model, which took it from its training images, see `depth`.
    """

    def mode(file: File) -> str:
        try:
            return mode_of(file)
        except ImageError:  # which is said where it is read
            return ""

    if depth == FILE:  # of a run from before there were depths
        return ""
    trained_wide = depth != DTYPE
    unlike = [
        file
        for file, found in zip(files, in_threads(mode, files), strict=True)
        if found and _is_wide(found) != trained_wide
    ]
    if not unlike:
        return ""
    those = f"{len(unlike)} of {len(files)} images, such as {printable(str(unlike[0]))},"
    if trained_wide:
        return (
            f"{those} have eight bits, and those trained on had more, of which {depth} became "
            "0..255: give them as they were trained on"
        )
    return (
        f"{those} have more than eight bits, and those trained on had not: their type's whole "
        "range becomes 0..255, so that twelve bits in sixteen are nearly black: give them as they "
        "were trained on"
    )


def few_readable(facts: Sequence[Facts], category: str, batch_size: int) -> list[Problem]:
    """That images to train on are enough for a batch, but not those that can be read."""
    train = [f for f in facts if (f.record.category, f.record.split) == (category, "train")]
    if len(train) < batch_size:
        return []  # the listing shows it already
    readable = sum(bool(fact.digest) for fact in train)
    return few_images(category, readable, batch_size, "readable training images")


def _unreadable(error: ImageError, record: Record, is_fatal: bool) -> Problem:
    kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
    kind = "mask size" if isinstance(error, MaskSizeError) else kind
    return Problem(kind, str(error), is_fatal, record.split == "train")


def _mask_problems(record: Record, skip: bool, rule: str) -> list[Problem]:
    problems = []
    masks: list[Mask] = []
    files = [mask for mask in record.masks if mask.is_file()]
    is_fatal = record.split == "test" and not skip
    for file in files:
        try:
            mask, remark = read_mask_file(file, rule, record.image)
        except ImageError as error:
            problems.append(_unreadable(error, record, is_fatal))
            continue
        masks.append(mask)
        if remark:
            problems.append(Problem("mask size", remark))
        if not mask.is_plain:
            text = f"{file} holds more than two values: {_how_taken(mask)}"
            problems.append(Problem("mask not binary", text))
    shapes = {mask.marked.shape for mask in masks}
    if len(shapes) > 1:
        text = f"the masks of {record.image} differ in size: they cannot be joined"
        return [*problems, Problem("mask size", text, is_fatal)]
    if masks and len(masks) == len(files):  # of a file that cannot be read nothing is known
        problems += _marked_problems(files[0], np.logical_or.reduce([m.marked for m in masks]))
    return problems


def _how_taken(mask: Mask) -> str:
    values = np.unique(mask.values[mask.values > 0])
    shown = ", ".join(f"{value:g}" for value in values[:4]) + ", …" * (len(values) > 4)
    if mask.classes:
        return f"{shown} all count as defects; config.data.mask=threshold has only large ones count"
    return (
        f"of {shown} those from half of the largest on count as defects; "
        "config.data.mask=nonzero has all count"
    )


def _marked_problems(file: File, marked: np.ndarray) -> list[Problem]:
    if not marked.any():
        return [Problem("mask empty", f"{file} marks no pixel of a defective image")]
    share = marked.mean()
    if share == 1:
        return [Problem("mask full", f"{file} marks every pixel: see config.data.mask")]
    if share > _MOST:
        text = f"{file} marks {share:.0%} of its image: see config.data.mask, or is it inverted?"
        return [Problem("mask large", text)]
    return []
