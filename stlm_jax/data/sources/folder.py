"""A user's own images: a tree as MVTec AD's of which only train/good is needed, or any folders.

<root>/train/good/*                       or <root>/<category>/train/good/* for several parts
<root>/test/<good or defect>/*            optional
<root>/validation/good/*                  optional: good images to estimate the threshold from
<root>/validation/<defect>/*              optional: with them it is the one of the best F1
<root>/ground_truth/<defect>/<stem>_mask.* or <stem>.*   optional
"""

from dataclasses import dataclass
from pathlib import Path

from stlm_jax.data.folders import StrPath, images_if_any, list_images, subfolders
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import (
    GOOD,
    Reader,
    Tree,
    categories_in,
    check_category,
    masks_named,
    strays,
)
from stlm_jax.runtime.errors import UserError

DEFECT = "defect"

_find_masks = masks_named("_mask", "")
_TREE = Tree(validation="validation", find_masks=_find_masks)


def find_categories(root: StrPath) -> list[str]:
    """The names of the parts in `root`, sorted; its own name where it is laid out as one part."""
    root = Path(root)
    if _TREE.is_category(root):
        return [root.resolve().name]
    return categories_in(root, _TREE.is_category, "train/good and no <part>/train/good")


def scan(root: StrPath, category: str) -> Listing:
    """What there is of a part: train, then test by defect type, sorted by file name."""
    root = Path(root)
    check_category(root, category, find_categories(root))
    return _TREE.scan_folder(root if _TREE.is_category(root) else root / category, category)


READER = Reader(find_categories, scan, "ground_truth/<defect>/<name>_mask.* or <name>.*")


@dataclass(frozen=True)
class Directories:
    """One part whose images lie in folders of any name.

    Attributes:
        train: good images.
        test_good: further good images; empty where there are none.
        test_defect: defective images, in folders named for the defect or directly; may be empty.
            A folder in it that is `train` or `test_good` is passed over, and one that is called
            `good` holds good images.
        masks: their masks `<stem>_mask.*` or `<stem>.*`, in folders of the same names or directly;
            may be empty.
        category: what the part is called.
    """

    train: str
    test_good: str
    test_defect: str
    masks: str
    category: str

    def find_categories(self) -> list[str]:
        """The one name."""
        if not self.train:
            raise UserError("config.data.train_dir is empty: give the folder of good images")
        for key in ("train", "test_good", "test_defect", "masks"):
            folder = getattr(self, key)
            if folder and not Path(folder).is_dir():
                flag = "mask_dir" if key == "masks" else f"{key}_dir"
                raise UserError(f"config.data.{flag}: {folder} is not a folder: check the path")
        return [self.category]

    def scan(self, category: str) -> Listing:
        """What there is: train, test good, test by defect type, sorted by file name."""
        check_category("config.data", category, self.find_categories())
        listing = Listing([])
        for folder, split in ((self.train, "train"), (self.test_good, "test")):
            if folder:
                images = list_images(Path(folder))
                if not images:
                    listing.empty.append(Path(folder))
                listing.records.extend(Record(p, None, 0, GOOD, category, split) for p in images)
        if self.test_defect:
            self._add_defects(listing, Path(self.test_defect))
        if self.masks:
            folders = [Path(self.masks), *subfolders(Path(self.masks))]
            files = [path for folder in folders for path in list_images(folder)]
            listing.stray_masks.extend(strays(files, listing.records))
        return listing

    def _add_defects(self, listing: Listing, folder: Path) -> None:
        others = [Path(place).resolve() for place in (self.train, self.test_good) if place]
        kinds = [(p, p.name) for p in subfolders(folder) if p.resolve() not in others]
        for place, defect in [(folder, DEFECT), *kinds]:
            images = images_if_any(place)
            if not images and place != folder:
                listing.empty.append(place)
            masks: dict[str, Path] = {}
            if self.masks:
                of_defect = Path(self.masks) / defect
                masks = _find_masks(of_defect if of_defect.is_dir() else Path(self.masks))
            listing.records.extend(
                Record(p, None, 0, GOOD, self.category, "test")
                if defect == GOOD
                else Record(p, masks.get(p.stem), 1, defect, self.category, "test")
                for p in images
            )
