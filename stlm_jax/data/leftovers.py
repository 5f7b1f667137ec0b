"""What lies in the folders of a data set and is not read, so that none of it goes unsaid."""

import stat
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from stlm_jax.data.folders import IMAGE_SUFFIXES
from stlm_jax.data.problems import Problem
from stlm_jax.data.records import File, Listing
from stlm_jax.data.tfds_file import StoredFile
from stlm_jax.runtime.paths import real_name
from stlm_jax.workdir import RUN

NOT_READ = "not read"  # their kind of problem
_SHOWN = 10  # names in a line
_OTHER_PICTURES = frozenset(
    ".heic .heif .avif .gif .jfif .jpe .jp2 .j2k .jxl .dib .tga .ppm .pgm .pbm .pnm .pcx .exr .hdr "
    ".dng .raw .cr2 .cr3 .nef .arw .orf .rw2 .psd .svg .ico .dcm .npy .npz".split()
)
_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})  # what systems leave in every folder

_STRAY = "no part of the layout", "move or remove them"
_HIDDEN = "hidden", "rename or remove them"
_LINK = "broken links", "mend or remove them"
_FOLDER = "folders in spite of their names", "rename or remove them"
_SPECIAL = "no regular files", "remove them"
_FORMAT = "of a format that is not read", "convert them, to PNG say"
_NO_IMAGE = "without the name of an image", "rename or remove them"
_CLOSED = "cannot be listed", "change their permissions"


def leftovers(listing: Listing) -> list[Problem]:
    """Those in the folders of a listing, a line for each folder and reason, with a count.

    What is no picture counts in folders of images only, not beside them; hidden files that are no
    images do not count.
    """
    parent = cache(real_name)  # a folder may be reached by several names

    def key(path: Path) -> tuple[str, str]:
        return parent(path.parent), path.name

    files: Iterable[File] = [
        *(file for record in listing.records for file in (record.image, *record.masks)),
        *listing.stray_masks,
    ]
    read = {key(file) for file in files if not isinstance(file, StoredFile)}
    groups: dict[tuple[Path, tuple[str, str]], list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for folder, around in [
        *((folder, False) for folder in listing.folders),
        *((folder, True) for folder in listing.around),
    ]:
        for path, reason in _unread(folder, around):
            if key(path) not in read and key(path) not in seen:
                seen.add(key(path))
                groups.setdefault((path.parent, reason), []).append(path.name)
    return [_problem(*group, names) for group, names in sorted(groups.items())]


def _problem(folder: Path, reason: tuple[str, str], names: list[str]) -> Problem:
    what, advice = reason
    names = sorted(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = ", ".join(names[:_SHOWN]) + more
    text = f"{folder}: {len(names)} not read, {what} ({shown}): {advice}"
    return Problem(NOT_READ, text)


def _unread(folder: Path, around: bool) -> Iterator[tuple[Path, tuple[str, str]]]:
    """What is in `folder` and below, with the reason for which it would not be read."""
    visited: set[str] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        real = real_name(place)
        if real in visited or not place.is_dir():
            continue
        visited.add(real)  # links may lead in a circle
        try:
            entries = sorted(place.iterdir())
        except OSError:
            yield place, _CLOSED
            continue
        for path in entries:
            reason = _reason(path)
            is_run = around and (path / RUN).is_file()  # of ours, with its own pictures
            if path.is_dir() and not (is_run or path.name.startswith(".")):
                waiting.append(path)
            if reason and not (around and reason is _NO_IMAGE):
                yield path, reason


def _reason(path: Path) -> tuple[str, str] | None:
    suffix, hidden = path.suffix.lower(), path.name.startswith(".")
    is_picture = suffix in IMAGE_SUFFIXES
    if hidden:  # those in ._ are not images but what macOS keeps of them
        return _HIDDEN if is_picture and not path.name.startswith("._") else None
    try:
        mode = path.stat().st_mode
    except OSError:
        return _LINK
    if stat.S_ISDIR(mode):
        return _FOLDER if is_picture or suffix in _OTHER_PICTURES else None
    if not stat.S_ISREG(mode):
        return _SPECIAL
    if is_picture:
        return _STRAY
    if suffix in _OTHER_PICTURES:
        return _FORMAT
    return None if path.name.lower() in _CLUTTER else _NO_IMAGE
