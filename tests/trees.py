"""Miniature data sets on disk, for the tests of what reads them."""

import pathlib

import numpy as np
from PIL import Image

SIZE = (12, 10)  # width, height
NUT = """
    nut/train/good/000.png
    nut/train/good/001.png
    nut/train/good/002.png
    nut/test/good/000.png
    nut/test/cut/000.png
    nut/test/cut/001.png
    nut/ground_truth/cut/000_mask.png = 0 255
    nut/ground_truth/cut/001_mask.png = 0 0 255
"""  # a category in MVTec AD's layout, for `write_files`


def write_files(root: pathlib.Path, names: str) -> pathlib.Path:
    """Writes a small image, unlike all others, under each of `names`, given one a line.

    `a.png = 0 255` makes an image of one row with those values, repeated to the usual size.
    """
    for number, line in enumerate(filter(None, map(str.strip, names.splitlines()))):
        name, _, values = (part.strip() for part in line.partition("="))
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0]), np.uint8)
        if values:
            row = np.resize(np.array(values.split(), np.uint8), SIZE[0])
            pixels = np.tile(row, (SIZE[1], 1))
        write_image(root / name, pixels)
    return root


def write_image(path: pathlib.Path, pixels: np.ndarray) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def short(record, root: pathlib.Path) -> tuple:
    """A record as split, defect, label, and its files relative to `root`."""
    masks = " + ".join(path.relative_to(root).as_posix() for path in record.masks)
    image = record.image.relative_to(root).as_posix()
    return record.split, record.defect, record.label, image, masks


def listed(reader, root, category):
    """What a reader says: short records, stray masks and empty folders, relative to `root`."""
    listing = reader.scan(root, category)
    assert reader.scan(str(root), category) == listing
    assert {record.category for record in listing.records} <= {category}
    strays = [path.relative_to(root).as_posix() for path in listing.stray_masks]
    empty = [path.relative_to(root).as_posix() for path in listing.empty]
    return [short(record, root) for record in listing.records], strays, empty
