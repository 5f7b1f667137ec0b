"""The folder layout of MVTec LOCO AD (Bergmann et al., IJCV 2022).

<root>/<category>/train/good/*.png
<root>/<category>/validation/good/*.png
<root>/<category>/test/<good, logical_anomalies or structural_anomalies>/*.png
<root>/<category>/ground_truth/<kind>/<stem>/000.png, 001.png, …

Every anomaly of an image has a mask of its own; their union counts, but in LOCO's own measure
(sPRO), for which <root>/<category>/defects_config.json says what share of which anomaly, told by
its mask's value, has to be found.
"""

import dataclasses
from pathlib import Path

from stlm_jax.data.folders import StrPath, list_images, subfolders
from stlm_jax.data.records import Listing, Saturation
from stlm_jax.data.sources.layout import Masks, Reader, Tree
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json
from stlm_jax.runtime.paths import path_of

DEFECTS = "defects_config.json"


def _masks_in_folders(folder: Path) -> Masks:
    files = {place.name: tuple(list_images(place)) for place in subfolders(folder)}
    return {name: masks for name, masks in files.items() if masks}


_TREE = Tree(validation="validation", find_masks=_masks_in_folders)


def scan(root: StrPath, category: str) -> Listing:
    """As `layout.Tree.scan`; where `defects_config.json` is there, with saturations."""
    listing = _TREE.scan(root, category)
    saturations = _saturations(path_of(root) / category / DEFECTS)
    records = [
        dataclasses.replace(record, saturations=saturations) if record.masks else record
        for record in listing.records
    ]
    return dataclasses.replace(listing, records=records)


READER = Reader(_TREE.find_categories, scan, "ground_truth/<kind>/<name>/000.png, 001.png, …")


def _saturations(path: Path) -> tuple[Saturation, ...]:
    if not path.is_file():
        return ()
    try:
        return tuple(
            Saturation(
                value=int(defect["pixel_value"]),
                threshold=float(defect["saturation_threshold"]),
                relative=bool(defect["relative_saturation"]),
            )
            for defect in read_json(path)
        )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(
            f"{path} does not say how defects saturate ({error!r}): restore it"
        ) from None
