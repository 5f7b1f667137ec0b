"""A user's own images: a tree as MVTec AD's of which only train/good is needed, or any folders.

<root>/train/good/*                       or <root>/<category>/train/good/* for several parts
<root>/test/<good or defect>/*            optional
<root>/validation/good/*                  optional: good images to estimate the threshold from
<root>/validation/<defect>/*              optional: with them it is the one of the best F1
<root>/ground_truth/<defect>/<stem>_mask.* or <stem>.*   optional
"""

from dataclasses import dataclass
from pathlib import Path

from stlm_jax.data.folders import StrPath, list_images, same_name, subfolders
from stlm_jax.data.records import Listing
from stlm_jax.data.sources.layout import (
    DEFECT,
    GOOD,
    Masks,
    Reader,
    Tree,
    add_images,
    categories_in,
    check_category,
    masks_named,
    strays,
)
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

FOLDER_KEYS = ("train_dir", "test_good_dir", "test_defect_dir", "mask_dir")  # of `config.data`

_find_masks = masks_named("_mask", "")
_TREE = Tree(validation="validation", find_masks=_find_masks)


def find_categories(root: StrPath) -> list[str]:
    """The names of the parts in `root`, sorted; its own name where it is laid out as one part."""
    root = path_of(root)
    if _TREE.is_category(root):
        return [root.resolve().name]
    return categories_in(root, _TREE.is_category, "train/good and no <part>/train/good")


def scan(root: StrPath, category: str) -> Listing:
    """What there is of a part: train, then test by defect type, sorted by file name."""
    root = path_of(root)
    check_category(root, category, find_categories(root))
    return _TREE.scan_folder(root if _TREE.is_category(root) else root / category, category)


READER = Reader(find_categories, scan, "ground_truth/<defect>/<name>_mask.* or <name>.*")


@dataclass(frozen=True)
class Directories:
    """One part whose images lie in folders of any name.

    Attributes:
        train_dir: good images.
        test_good_dir: further good images; empty where there are none.
        test_defect_dir: defective images, in folders named for the defect or directly; may be
            empty. A folder in it that is one of the other two is passed over, and one that is
            called `good` holds good images.
        mask_dir: their masks `<stem>_mask.*` or `<stem>.*`, in folders of the same names or
            directly; may be empty.
        category: what the part is called.
    """

    train_dir: str
    test_good_dir: str
    test_defect_dir: str
    mask_dir: str
    category: str

    def find_categories(self) -> list[str]:
        """The one name."""
        if not self.train_dir:
            raise UserError("config.data.train_dir is empty: give the folder of good images")
        for key in FOLDER_KEYS:
            folder = getattr(self, key)
            if folder and not path_of(folder).is_dir():
                raise UserError(f"config.data.{key}: {folder} is not a folder: check the path")
        return [self.category]

    def scan(self, category: str) -> Listing:
        """What there is: train, test good, test by defect type, sorted by file name."""
        check_category("config.data", category, self.find_categories())
        listing = Listing([])
        add_images(listing, path_of(self.train_dir), category, "train")
        if self.test_good_dir:
            add_images(listing, path_of(self.test_good_dir), category, "test")
        if self.test_defect_dir:
            self._add_defects(listing, path_of(self.test_defect_dir))
        if self.mask_dir:
            folders = [path_of(self.mask_dir), *subfolders(path_of(self.mask_dir))]
            files = [path for folder in folders for path in list_images(folder)]
            listing.stray_masks.extend(strays(files, listing.records))
        places = (getattr(self, key) for key in FOLDER_KEYS)
        listing.folders.extend(path_of(place) for place in places if place)
        return listing

    def _add_defects(self, listing: Listing, folder: Path) -> None:
        others = [
            path_of(place).resolve() for place in (self.train_dir, self.test_good_dir) if place
        ]
        places = [
            (p, GOOD if same_name(p.name, GOOD) else p.name)
            for p in subfolders(folder)
            if p.resolve() not in others
        ]
        if list_images(folder):
            places.insert(0, (folder, DEFECT))
        for place, defect in places:
            masks: Masks | None = None if defect == GOOD else {}
            if self.mask_dir and defect != GOOD:
                of_defect = path_of(self.mask_dir) / defect
                masks = _find_masks(of_defect if of_defect.is_dir() else path_of(self.mask_dir))
            add_images(listing, place, self.category, "test", defect, masks)
