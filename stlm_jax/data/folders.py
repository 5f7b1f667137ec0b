"""Folders of images: what is in them, sorted, without what is hidden."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.progress import note

StrPath = str | os.PathLike[str]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def visible(folder: Path) -> list[Path]:
    """What `folder` holds and does not hide, sorted."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"cannot list {folder}: {reason}") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted; none where there is no `folder`."""
    return [p for p in visible(folder) if p.is_dir()] if folder.is_dir() else []


def subfolder(folder: Path, name: str) -> Path:
    """`folder/name`, or where there is none the folder of that name in other letters (`Good`)."""
    exact = folder / name
    others = [] if exact.is_dir() else [p for p in subfolders(folder) if same_name(p.name, name)]
    return others[0] if others else exact


def same_name(one: str, other: str) -> bool:
    """Whether names are the same but for capital letters and spaces around them."""
    return one.strip().casefold() == other.casefold()


def is_image(path: Path) -> bool:
    """Whether `path` is a visible file with the suffix of an image."""
    name = path.name
    return path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") and path.is_file()


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder` by suffix, sorted; hidden files do not count."""
    return [p for p in visible(folder) if is_image(p)]


def images_if_any(folder: Path) -> list[Path]:
    """As `list_images`; none where there is no `folder`."""
    return list_images(folder) if folder.is_dir() else []


def by_number(path: Path) -> str:
    """What sorts paths as people count: `frame_2.png` before `frame_10.png`."""
    name = str(path)
    # Each number after the number of its digits; last the name, for `01` is 1, too.
    return re.sub("0*([0-9]+)", lambda number: f"{len(number[1]):03}{number[1]}", name) + name


def files_below(
    root: Path,
    *left_out: Path,
    recursive: bool = True,
    key: Callable[[Path], str] | None = None,
) -> Iterator[Path]:
    """All that is visible below a folder and is no folder; links are followed but for circles.

    The folders `left_out` are resolved. At a time the names in one folder are kept, and are sorted,
    by `key` where there is one.
    """
    pending = [(root, frozenset[Path]())]
    while pending:
        folder, above = pending.pop()
        real = folder.resolve()
        if real in left_out:
            continue
        if real in above:
            note(f"warning: {folder}: is a link to a folder above it, and is passed over")
            continue
        inside = []
        entries = visible(folder)
        for entry in sorted(entries, key=key) if key else entries:
            if entry.is_dir():
                inside.append((entry, above | {real}))
            else:
                yield entry
        pending += reversed(inside) if recursive else ()
