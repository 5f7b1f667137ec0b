"""Names of files as text that every file, picture and screen takes."""

import unicodedata
from pathlib import Path

_BREAKS = ("Cc", "Zl", "Zp")  # Unicode's categories of what breaks lines, and of its kind


def as_utf8(name: str | Path) -> str:
    r"""A file's name as text that can be written; bytes that are no UTF-8 as `\udce9`."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def printable(name: str | Path) -> str:
    r"""As `as_utf8`, on one line: control characters are escaped too, as `\n`."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _BREAKS else c
        for c in as_utf8(name)
    )
