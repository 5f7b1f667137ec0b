"""The data sets that can be read, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import ml_collections

from stlm_jax.data.records import Listing
from stlm_jax.data.sources import dagm, folder, ksdd2, mvtec_loco, tfds, trees, visa
from stlm_jax.data.sources.folder_csv import CsvTable
from stlm_jax.data.sources.layout import Reader
from stlm_jax.runtime.errors import UserError

ALL = "all"  # in `data.categories`: every category that the source holds
PART = "part"  # what a user's only part is called, where nothing names it


SOURCES: dict[str, Reader] = {
    "mvtec_ad": trees.MVTEC_AD,
    "visa": visa.READER,
    "dagm": dagm.READER,
    "mvtec_loco": mvtec_loco.READER,
    "mvtec_ad2": trees.MVTEC_AD2,
    "btad": trees.BTAD,
    "mpdd": trees.MPDD,
    "ksdd2": ksdd2.READER,
    "folder": folder.READER,
    "tfds": tfds.READER,
}


@dataclass(frozen=True)
class Source:
    """A data set at a place: as a `layout.Reader`, but for the root, which is known."""

    find_categories: Callable[[], list[str]]
    scan: Callable[[str], Listing]
    mask: str


def open_source(config: ml_collections.ConfigDict) -> Source:
    """The data set that `config.data` names; nothing is read yet."""
    data = config.data
    if data.source == "folder":
        given = [key for key in folder.FOLDER_KEYS if data[key]]
        if data.csv and given:
            raise UserError(
                f"config.data.csv and config.data.{given[0]} are both given: name images by one"
            )
        if data.csv:
            table = CsvTable(data.csv, data.root, _own_name(config))
            return Source(table.find_categories, table.scan, "column mask")
        if given:
            keys = {key: data[key] for key in folder.FOLDER_KEYS}
            places = folder.Directories(**keys, category=_own_name(config))
            mask = "data.mask_dir/<defect>/<name>_mask.*"
            return Source(places.find_categories, places.scan, mask)
    if not data.root:
        raise UserError(
            "config.data.root is empty: give the folder of the categories, --config.data.root=DIR"
        )
    reader = SOURCES[data.source]
    return Source(
        partial(reader.find_categories, data.root), partial(reader.scan, data.root), reader.mask
    )


def _own_name(config: ml_collections.ConfigDict) -> str:
    names = config.data.categories
    return names[0] if len(names) == 1 and names[0] != ALL else PART
