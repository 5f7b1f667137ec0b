"""The folder layout of MVTec AD (Bergmann et al., CVPR 2019), read strictly.

<root>/<category>/train/good/*.png
<root>/<category>/test/<good or defect>/*.png
<root>/<category>/ground_truth/<defect>/<stem>_mask.png
"""

import os
from pathlib import Path

from stlm_jax.data.records import Record
from stlm_jax.errors import UserError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
GOOD = "good"


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder` by suffix, sorted; hidden files do not count.

    Raises:
        UserError: when the folder cannot be listed.
    """
    return [p for p in _visible(folder) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]


def find_categories(root: str | os.PathLike[str]) -> list[str]:
    """The names of the folders under `root` that hold `train/good`, sorted.

    Raises:
        UserError: when `root` is not a folder or holds no category.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder: set it to the folder of categories")
    names = [p.name for p in _visible(root) if (p / "train" / GOOD).is_dir()]
    if not names:
        raise UserError(
            f"data.root: {root} holds no <category>/train/good: set it to the folder of categories"
        )
    return names


def _images_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: MVTec AD's layout needs it")
    images = list_images(folder)
    if not images:
        raise UserError(f"{folder} holds no image: put some there ({', '.join(_suffixes())})")
    return images


def _suffixes() -> list[str]:
    return sorted(IMAGE_SUFFIXES)


def _mask_of(image: Path, folder: Path) -> Path:
    mask = folder / f"{image.stem}_mask.png"
    if not mask.is_file():
        raise UserError(f"{mask} is missing: it is the ground truth of {image}")
    return mask


def read_category(root: str | os.PathLike[str], category: str) -> list[Record]:
    """Every image of a category: train, then test by defect type, sorted by file name.

    Args:
        root: the folder of categories.
        category: name of one of them.

    Raises:
        UserError: when the category is unknown, a folder of the layout is missing or empty, or an
            anomalous image has no ground truth.
    """
    root = Path(root)
    names = find_categories(root)
    if category not in names:
        raise UserError(
            f"data.categories: {category!r} is not in {root}, which holds {', '.join(names)}"
        )
    base = root / category
    records = [
        Record(image, None, 0, GOOD, category, "train")
        for image in _images_of(base / "train" / GOOD)
    ]
    test = base / "test"
    if not test.is_dir():
        raise UserError(f"{test} is missing: MVTec AD's layout needs it")
    kinds = [p for p in _visible(test) if p.is_dir()]
    if not kinds:
        raise UserError(f"{test} holds no folder: put the images into {test / GOOD} and the like")
    for kind in kinds:
        for image in _images_of(kind):
            if kind.name == GOOD:
                records.append(Record(image, None, 0, GOOD, category, "test"))
            else:
                mask = _mask_of(image, base / "ground_truth" / kind.name)
                records.append(Record(image, mask, 1, kind.name, category, "test"))
    return records
