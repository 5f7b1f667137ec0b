"""What readers of data sets share, and the tree that most of them are laid out in: MVTec AD's.

<root>/<category>/train/<good>/<stem>.<suffix>
<root>/<category>/test/<good or defect>/<stem>.<suffix>
<root>/<category>/ground_truth/<defect>/<stem>_mask.<suffix>
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stlm_jax.data.folders import (
    StrPath,
    images_if_any,
    is_image,
    same_name,
    subfolder,
    subfolders,
    visible,
)
from stlm_jax.data.records import Listing, Record
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

GOOD = "good"
DEFECT = "defect"  # the kind of a defect whose kind has no name

Masks = Mapping[str, Path | tuple[Path, ...]]  # by the stem of the image that they belong to


@dataclass(frozen=True)
class Reader:
    """What a data set offers.

    Attributes:
        find_categories: gives the names of the categories in a folder.
        scan: gives what there is of one of them.
        mask: how masks are named, for messages.
    """

    find_categories: Callable[[StrPath], list[str]]
    scan: Callable[[StrPath, str], Listing]
    mask: str


def categories_in(root: StrPath, is_category: Callable[[Path], bool], example: str) -> list[str]:
    """The names of the folders in `root` that `is_category` accepts, sorted, such as `example`."""
    root = path_of(root)
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder: set it to the folder of categories")
    names = [p.name for p in visible(root) if is_category(p)]
    if not names:
        raise UserError(f"data.root: {root} holds no {example}: set it to the folder of categories")
    return names


def check_category(root: StrPath, category: str, names: Collection[str]) -> None:
    """Raises UserError where a category is not one of `names`."""
    if category not in names:
        raise UserError(
            f"data.categories: {category!r} is not in {root}, which holds {', '.join(names)}"
        )


def masks_named(*endings: str) -> Callable[[Path], dict[str, Path]]:
    """Finds `<image's stem><ending>.<any suffix>` in a folder, an earlier ending first."""

    def find(folder: Path) -> dict[str, Path]:
        files = images_if_any(folder)
        masks: dict[str, Path] = {}
        for ending in endings:
            for path in files:
                if path.stem.endswith(ending):
                    masks.setdefault(path.stem.removesuffix(ending), path)
        return masks

    return find


def strays(files: Iterable[Path], records: Iterable[Record]) -> list[Path]:
    """Those of `files` that are the mask of no record."""
    used = {mask for record in records for mask in record.masks}
    return [path for path in files if path not in used]


def add_images(
    listing: Listing,
    folder: Path,
    category: str,
    split: str,
    defect: str = GOOD,
    masks: Masks | None = None,
) -> None:
    """Adds the images of a folder: good ones, or defective ones with `masks`, which may be {}."""
    images = images_if_any(folder)
    if not images:
        listing.empty.append(folder)
    listing.records.extend(
        Record(image, None, 0, GOOD, category, split)
        if masks is None
        else Record(image, masks.get(image.stem), 1, defect, category, split)
        for image in images
    )


@dataclass(frozen=True)
class Tree:
    """A layout in the form that this module's text shows.

    Attributes:
        good: the folder of normal images in train and test.
        validation: the folder beside train with further images, by defect type, of which no masks
            are read; empty where there is none.
        test: the folder of test images.
        ground_truth: the folder of masks.
        find_masks: gives the masks in `ground_truth/<defect>`.
    """

    good: str = GOOD
    validation: str = ""
    test: str = "test"
    ground_truth: str = "ground_truth"
    find_masks: Callable[[Path], Masks] = masks_named("_mask")

    def find_categories(self, root: StrPath) -> list[str]:
        """The names of the categories in `root`, sorted."""
        return categories_in(root, self.is_category, f"<category>/train/{self.good}")

    def is_category(self, folder: Path) -> bool:
        """Whether `folder` is laid out as a category."""
        return subfolder(folder / "train", self.good).is_dir()

    def scan(self, root: StrPath, category: str) -> Listing:
        """What there is of a category: train, validation, test by defect type, by file name."""
        check_category(root, category, self.find_categories(root))
        return self.scan_folder(path_of(root) / category, category)

    def reader(self, mask: str) -> Reader:
        """The reader of a data set that is such a tree; `mask` says how its masks are named."""
        return Reader(self.find_categories, self.scan, mask)

    def scan_folder(self, base: Path, category: str) -> Listing:
        """As `scan`, for the category whose folder is `base`."""
        listing = Listing([])
        add_images(listing, subfolder(base / "train", self.good), category, "train")
        for kind in subfolders(base / self.validation) if self.validation else ():
            no_masks: Masks | None = None if same_name(kind.name, self.good) else {}
            add_images(listing, kind, category, "validation", kind.name, no_masks)
        truth = base / self.ground_truth
        for kind in subfolders(base / self.test):
            if same_name(kind.name, self.good):
                add_images(listing, kind, category, "test")
            elif kind != truth:
                masks = self.find_masks(truth / kind.name)
                add_images(listing, kind, category, "test", kind.name, masks)
        for kind in subfolders(truth):
            files = sorted(filter(is_image, kind.rglob("*")))
            listing.stray_masks.extend(strays(files, listing.records))
        own = ("train", self.validation, self.test, self.ground_truth)
        listing.folders.extend(base / name for name in own if name)
        listing.around.append(base)
        return listing
