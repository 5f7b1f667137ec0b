"""The images that a configuration names."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from stlm_jax.config.rules import DTYPE, TRAIN
from stlm_jax.data import problems
from stlm_jax.data.checked import Checked, identity, known_problems
from stlm_jax.data.demo.dataset import write_demo
from stlm_jax.data.depth import quantile_range
from stlm_jax.data.held_out import hold_out
from stlm_jax.data.images import ImageError, wide_sample
from stlm_jax.data.inspection import Facts, duplicates, few_readable, inspect_all, mixed_depths
from stlm_jax.data.leftovers import NOT_READ, leftovers
from stlm_jax.data.problems import Problem
from stlm_jax.data.reader import ImageReader
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.registry import ALL, open_source
from stlm_jax.data.textures import texture_files
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import in_bucket
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable

SKIP = "skip"  # of config.data.on_error
_MANY = 50  # images that take long enough for a line of progress at the start of a run
_MOST_FOLDERS = 20  # with files that are not read, a line each


def prepare(config: ml_collections.ConfigDict) -> None:
    """Makes `config.data` ready to be read.

    Writes the demo set where `data.demo` asks for it, and puts the names that the source holds in
    the place of `all` in `data.categories`.
    """
    if config.data.demo and config.data.root:
        if in_bucket(config.data.root):
            raise UserError(
                f"config.data.root={config.data.root}: the demo set is written to a local folder, "
                "whose name has to be given: copy it to the bucket and set config.data.demo=False"
            )
        write_demo(Path(config.data.root))
    there = open_source(config).find_categories()
    if tuple(config.data.categories) == (ALL,):
        config.data.categories = tuple(there)
    for category in config.data.categories:
        if category not in there:
            place = config.data.csv or config.data.train_dir or config.data.root
            raise UserError(
                f"config.data.categories: {place} has no {category!r}, it has "
                f"{', '.join(there)}; choose with --config.data.categories=A,B"
            )
        if category != printable(category):  # it names folders of the run, which Orbax opens
            raise UserError(
                f"config.data.categories: the name {printable(category)} is not UTF-8 or holds a "
                "control character: rename the folder"
            )


def check(
    config: ml_collections.ConfigDict,
    training: bool = True,
    say: Callable[[str], None] = note,
    known: Path | None = None,
) -> Checked:
    """Raises the first problem that a run would stop at, before it begins; reads every image.

    What a run would not stop at is said, one line for each kind of problem, and one for each
    folder with files that are not read. Without `training`, what only training would stop at is
    said likewise. Where the file `known` holds a check of the same files as they are now, they are
    not read again.
    """
    listings, found = _list(config)
    _raise_fatal(found, training, say)
    records = _records(listings)
    of = identity(config, records)
    read = known_problems(known, of) if known else None
    if read is None:
        read = _read(config, listings, _MANY).problems
    _raise_fatal([*found, *read], training, say)
    _say_kinds([*found, *read], say)
    return Checked(of, read)


def _raise_fatal(found: list[Problem], training: bool, say: Callable[[str], None]) -> None:
    fatal = [p for p in problems.fatal(found) if training or not p.training]
    if fatal:
        _say_kinds([p for p in found if p.kind == NOT_READ], say)
        raise UserError(fatal[0].text + _and_more(len(fatal) - 1))


class Survey(NamedTuple):
    """What there is to say of the data."""

    facts: list[Facts]
    problems: list[Problem]


def survey(config: ml_collections.ConfigDict) -> Survey:
    """What training and evaluation say of the data, what `commands/check_data.py` prints.

    First come the problems that folders and tables show, then those of every file.
    """
    listings, listed = _list(config)
    facts, read = _read(config, listings, shown_from=0)
    return Survey(facts, [*listed, *read])


def _list(config: ml_collections.ConfigDict) -> tuple[dict[str, Listing], list[Problem]]:
    """The listings by category, and the problems that they show."""
    listings: dict[str, Listing] = {}
    listed: list[Problem] = []
    try:
        texture_files(config.data.texture_root)
    except UserError as error:
        listed.append(Problem("textures", str(error), fatal=True, training=True))
    for category in config.data.categories:
        try:
            listings[category] = scan(config, category)
        except UserError as error:
            listed.append(Problem("category", f"{category}: {error}", fatal=True))
    for category, listing in listings.items():
        listed += problems_of(config, category, listing)
    return listings, listed


def _records(listings: dict[str, Listing]) -> list[Record]:
    return [record for listing in listings.values() for record in listing.records]


def _read(
    config: ml_collections.ConfigDict, listings: dict[str, Listing], shown_from: int
) -> Survey:
    """What is in every file; so many images have a line of progress."""
    facts = inspect_all(_records(listings), skips(config), config.data.mask, shown_from)
    read = [problem for fact in facts for problem in fact.problems]
    read += duplicates(facts)
    for category in listings:
        read += mixed_depths(facts, category)
        if skips(config):
            read += few_readable(facts, category, config.train.batch_size)
    return Survey(facts, read)


def problems_of(
    config: ml_collections.ConfigDict, category: str, listing: Listing
) -> list[Problem]:
    """What the listing of a category shows to be wrong."""
    mask_name, batch_size = open_source(config).mask, config.train.batch_size
    listed = problems.of_listing(category, listing, mask_name, batch_size, skips(config))
    return [*listed, *leftovers(listing)]


def scan(config: ml_collections.ConfigDict, category: str) -> Listing:
    """What there is of a category, the images that `config.calibration` holds out told apart."""
    listing = open_source(config).scan(category)
    records = hold_out(listing.records, config.calibration.held_out, config.seed, category)
    return dataclasses.replace(listing, records=records)


def split_of(config: ml_collections.ConfigDict, category: str, split: str) -> list[Record]:
    """The records of a category whose `Record.split` is `split`, in their order."""
    return [record for record in scan(config, category).records if record.split == split]


def skips(config: ml_collections.ConfigDict) -> bool:
    """Whether images that cannot be read are left out."""
    return config.data.on_error == SKIP


def find_depth(config: ml_collections.ConfigDict, category: str, records: list[Record]) -> str:
    """What `config.data.depth` means for a category with so many images to train on.

    Quantiles of their values, where they have more than eight bits.
    """
    if config.data.depth != TRAIN:
        return config.data.depth

    def sample(record: Record) -> np.ndarray | None:
        try:
            return wide_sample(record.image)
        except ImageError:  # it is left out, which is said where it is
            if not skips(config):
                raise
            return None

    samples = [values for values in in_threads(sample, records) if values is not None]
    if not samples:
        return DTYPE  # what is trained on has no range of its own
    found = quantile_range(samples)
    low, high = found.split(",")
    note(f"{category}: values from {low} to {high} become 0..255, see config.data.depth")
    return found


def image_reader(config: ml_collections.ConfigDict) -> ImageReader:
    """How the images are read; `config` is of one category, see `depth.resolved`."""
    data = config.data
    return ImageReader(config.image_size, data.geometry, skips(config), data.depth)


def _say_kinds(found: Sequence[Problem], say: Callable[[str], None]) -> None:
    by_kind: dict[str, list[str]] = {}
    for problem in found:
        by_kind.setdefault(problem.kind, []).append(problem.text)
    for kind, texts in by_kind.items():
        shown = texts[: _MOST_FOLDERS if kind == NOT_READ else 1]
        for text in shown[:-1]:
            say(f"warning: {kind}: {text}")
        say(f"warning: {kind}: {shown[-1]}{_and_more(len(texts) - len(shown))}")


def _and_more(count: int) -> str:
    command = "python -m stlm_jax.commands.check_data"
    return f" (and {count} more; {command} lists them)" if count else ""
