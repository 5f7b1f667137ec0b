"""Where an image's pictures go: a folder of its own below the output, called as the image is.

An image below the base has its path there, `a/000.png`, any other its whole path, below `@root` or
`@gs`. A part of a path that begins with `@`, or has a name that is used otherwise, is written with
`@=` before it, and one that is too long for file systems cut, with a digest: no two paths have
one folder.
"""

import hashlib
import os
import unicodedata
from pathlib import Path

from stlm_jax.runtime.paths import BUCKETS

PREDICTIONS, ABOUT = "predictions.jsonl", "predictions.json"
LOCK = "predictions.lock"
MAPS = {"png16": "map.png", "tiff": "map.tiff", "npy": "map.npy"}
OVERLAY = "overlay.png"
_RESERVED = {"", ".", "..", PREDICTIONS, ABOUT, LOCK, OVERLAY, *MAPS.values()}
_LONGEST, _KEPT = 230, 150  # bytes: file systems take 255, and what is put before it takes a few


def folder_of(location: str, base: str, number: int = 0, folds_case: bool = False) -> str:
    """The folder of an image, relative to the output.

    Args:
        location: the image's path, absolute.
        base: an absolute folder.
        number: how many other images there were at that path before.
        folds_case: whether the output's file system takes names for equal that differ by case.
    """
    if location.startswith(base.rstrip("/") + "/"):
        parts = location[len(base.rstrip("/")) + 1 :].split("/")
        above = []
    elif location.startswith(BUCKETS):
        parts, above = location.removeprefix(BUCKETS).split("/"), ["@gs"]
    else:
        parts, above = location.removeprefix("/").split("/"), ["@root"]
    *folders, name = [_encoded(part, folds_case) for part in parts]
    return "/".join([*above, *folders, f"@{number + 1}={name}" if number else name])


def _encoded(part: str, folds_case: bool) -> str:
    raw = os.fsencode(part)
    if len(raw) > _LONGEST:
        kept = raw[:_KEPT].decode("utf-8", "ignore")
        return f"@cut={_digest(raw)}={_folded(kept) if folds_case else kept}"
    if folds_case and part != _folded(part):
        return f"@{_digest(raw)}={part}"
    # Of a name in other letters too: where case is folded, it is the same file.
    return f"@={part}" if part.startswith("@") or _folded(part) in _RESERVED else part


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def folds_case(folder: Path) -> bool:
    """Whether names in a folder, which is there, are equal if they differ by case only."""
    probe = folder / f".Case{os.getpid()}"
    probe.touch()
    try:
        return (folder / probe.name.lower()).exists()
    finally:
        probe.unlink(missing_ok=True)
