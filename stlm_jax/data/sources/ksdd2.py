"""The layout of KolektorSDD2 (Božič et al., 2021), read for unsupervised training.

<root>/train/10000.png, 10000_GT.png, …
<root>/test/20000.png, 20000_GT.png, …

Every image has a ground truth, and a good one an empty one, so that all of these are opened to
tell which is which. Training takes the good images of `train`; its defective ones are listed as
`unused`. Names that are not a number, or a number and `_GT`, are not part of the set: the archive
holds `10301 (copy).png` and `10301_GT (copy).png`.
"""

from stlm_jax.data.folders import StrPath, images_if_any
from stlm_jax.data.images import read_mask
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import DEFECT, GOOD, Reader, check_category, masks_named
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

CATEGORY = "ksdd2"

_find_masks = masks_named("_GT")


def find_categories(root: StrPath) -> list[str]:
    """The one category, `ksdd2`."""
    root = path_of(root)
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        raise UserError(
            f"data.root: {root} holds no train and test: set it to the extracted KolektorSDD2"
        )
    return [CATEGORY]


def scan(root: StrPath, category: str) -> Listing:
    """What there is: train, then test, sorted by file name."""
    check_category(root, category, find_categories(root))
    listing = Listing([])
    for split, anomalous in (("train", "unused"), ("test", "test")):
        folder = path_of(root) / split
        listing.folders.append(folder)
        images = [p for p in images_if_any(folder) if p.stem.isdecimal()]
        if not images:
            listing.empty.append(folder)
        masks = {stem: mask for stem, mask in _find_masks(folder).items() if stem.isdecimal()}
        for image in images:
            if image.stem not in masks:
                raise UserError(
                    f"{image.with_name(image.stem + '_GT.png')} is missing: it says whether "
                    f"{image.name} is defective"
                )
        own = [masks[image.stem] for image in images]
        marks = in_threads(lambda mask: read_mask(mask, None).any(), own)
        listing.records.extend(
            Record(image, mask, 1, DEFECT, category, anomalous)
            if is_marked
            else Record(image, None, 0, GOOD, category, split)
            for image, mask, is_marked in zip(images, own, marks, strict=True)
        )
        listing.stray_masks.extend(sorted({*masks.values()} - {*own}))
    return listing


READER = Reader(find_categories, scan, "<name>_GT.png")
