"""Zip archives that hold weights: whether they unpack to what weights of their size may be."""

import zipfile
from pathlib import Path

_SMALL, _DENSEST = 2**26, 20  # bytes, and times its size, that an archive of weights unpacks to


def require_honest_sizes(path: Path) -> None:
    """Raises ValueError of a local archive that says it holds far more than its size.

    It is a bomb, or its directory is damaged; whoever reads it would take that much memory.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(_SMALL, _DENSEST * path.stat().st_size):
        raise ValueError(f"it unpacks to {unpacked / 1e6:.0f} MB, as no weights do")
