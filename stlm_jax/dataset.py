"""The images that a configuration names."""

from pathlib import Path

import ml_collections

from stlm_jax.data.demo import write_demo
from stlm_jax.data.mvtec_ad import find_categories, read_category
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError


def prepare(config: ml_collections.ConfigDict) -> None:
    """Write the demo set where `data.demo` asks for it; check `data.root` and `data.categories`.

    Raises:
        UserError: the folder, or one of the categories, is missing.
    """
    root = config.data.root
    if not root:
        raise UserError(
            "config.data.root is empty: give the folder of the categories, --config.data.root=DIR"
        )
    if config.data.demo:
        write_demo(Path(root))
    there = find_categories(root)
    for category in config.data.categories:
        if category not in there:
            raise UserError(
                f"config.data.categories: {root} has no {category!r}, it has {', '.join(there)}; "
                "choose with --config.data.categories=A,B"
            )


def split_of(config: ml_collections.ConfigDict, category: str, split: str) -> list[Record]:
    """The records of one split, `train` or `test`, of a category, in the reader's order.

    Raises:
        UserError: the category's folders are not complete.
    """
    records = read_category(config.data.root, category)
    return [record for record in records if record.split == split]
