"""The folder layout of MVTec LOCO AD (Bergmann et al., IJCV 2022).

<root>/<category>/train/good/*.png
<root>/<category>/validation/good/*.png
<root>/<category>/test/<good, logical_anomalies or structural_anomalies>/*.png
<root>/<category>/ground_truth/<kind>/<stem>/000.png, 001.png, …

Every anomaly of an image has a mask of its own; here their union counts. The saturation of large
anomalies, which LOCO's own measure (sPRO) reads from `defects_config.json`, is not applied.
"""

from pathlib import Path

from stlm_jax.data.layout import Masks, Tree, list_images, subfolders

MASK = "ground_truth/<kind>/<name>/000.png, 001.png, …"


def _masks_in_folders(folder: Path) -> Masks:
    files = {place.name: tuple(list_images(place)) for place in subfolders(folder)}
    return {name: masks for name, masks in files.items() if masks}


_TREE = Tree(validation="validation", find_masks=_masks_in_folders)
find_categories, scan, read_category = _TREE.find_categories, _TREE.scan, _TREE.read_category
