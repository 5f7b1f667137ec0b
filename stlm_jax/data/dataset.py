"""The images that a configuration names."""

import dataclasses
from pathlib import Path

import ml_collections

from stlm_jax.data import problems
from stlm_jax.data.demo.dataset import write_demo
from stlm_jax.data.held_out import hold_out
from stlm_jax.data.reader import ImageReader
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.registry import ALL, open_source
from stlm_jax.data.textures import texture_files
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

SKIP = "skip"  # of config.data.on_error


def prepare(config: ml_collections.ConfigDict) -> None:
    """Makes `config.data` ready to be read.

    Writes the demo set where `data.demo` asks for it, and puts the names that the source holds in
    the place of `all` in `data.categories`.
    """
    if config.data.demo and config.data.root:
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


def check(config: ml_collections.ConfigDict) -> None:
    """Raises the first problem that the listings show a run to stop at; opens no image.

    What a run would not stop at is noted, one line for each kind of problem.
    """
    texture_files(config.data.texture_root)
    for category in config.data.categories:
        category_problems = problems_of(config, category, scan(config, category))
        fatal = problems.fatal(category_problems)
        if fatal:
            raise UserError(fatal[0].text + _and_more(len(fatal) - 1))
        by_kind: dict[str, list[str]] = {}
        for problem in category_problems:
            by_kind.setdefault(problem.kind, []).append(problem.text)
        for texts in by_kind.values():
            note(f"warning: {texts[0]}{_and_more(len(texts) - 1)}")


def problems_of(
    config: ml_collections.ConfigDict, category: str, listing: Listing
) -> list[problems.Problem]:
    """What the listing of a category shows to be wrong."""
    mask_name, batch_size = open_source(config).mask, config.train.batch_size
    return problems.of_listing(category, listing, mask_name, batch_size, skips(config))


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


def image_reader(config: ml_collections.ConfigDict) -> ImageReader:
    """How the images are read."""
    return ImageReader(config.image_size, config.data.geometry, skips(config))


def _and_more(count: int) -> str:
    command = "python -m stlm_jax.commands.check_data"
    return f" (and {count} more; {command} lists them)" if count else ""
