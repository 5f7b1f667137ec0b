"""Numbered frames, as cameras and ffmpeg write them: `frames/%06d.png`, in the order of numbers."""

import collections
import re
from pathlib import Path
from typing import NamedTuple, Self

from stlm_jax.data.folders import visible
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable

_NUMBER = re.compile(r"(?<!%)(?:%%)*(%(?:0?[1-9][0-9]?)?d)")
_SHOWN = 10  # gaps in a line
_KEPT = 10_000  # gaps: a camera that leaves out every second number runs for months


class Pattern(NamedTuple):
    """A file's name with a number in it.

    Attributes:
        folder: where the files are.
        before: what stands before the number.
        number: how it is written, as C's printf has it: `%d`, `%06d`.
        after: what stands behind it.
    """

    folder: Path
    before: str
    number: str
    after: str

    @classmethod
    def of(cls, name: str) -> Self | None:
        """The pattern that a text is; None where it has no number in its last part."""
        path = path_of(name)
        found = list(_NUMBER.finditer(path.name))
        if len(found) > 1:
            raise UserError(f"INPUT {printable(name)}: a pattern of frames has one number, not two")
        if not found:
            return None
        start, end = found[0].span(1)
        before, after = (part.replace("%%", "%") for part in (path.name[:start], path.name[end:]))
        return cls(path.parent, before, found[0][1], after)

    def __str__(self) -> str:
        return str(self.folder / f"{self.before}{self.number}{self.after}")

    def number_of(self, name: str) -> int | None:
        """The number of a frame; None of a file that the pattern does not write."""
        digits = self._between(name)
        return int(digits) if digits and self.number % int(digits) == digits else None

    def files(self) -> list[tuple[int, Path]]:
        """The frames that there are, by their number; hidden ones do not count."""
        if not self.folder.is_dir():
            return []
        numbered = ((self.number_of(path.name), path) for path in visible(self.folder))
        return sorted((number, path) for number, path in numbered if number is not None)

    def require(self) -> list[int]:
        """The numbers that there are, at least one."""
        numbers = [number for number, _ in self.files()]
        if not numbers:
            raise UserError(f"INPUT {printable(str(self))}: no file matches{self._hint()}")
        return numbers

    def _between(self, name: str) -> str:
        """What stands at the number's place, where it is a number."""
        end = len(name) - len(self.after)
        fits = name.startswith(self.before) and name.endswith(self.after)
        digits = name[len(self.before) : end] if fits else ""
        return digits if re.fullmatch(" *[0-9]+", digits) else ""

    def _hint(self) -> str:
        if not self.folder.is_dir():
            return f", {printable(self.folder)} is no folder"
        for path in visible(self.folder):
            if digits := self._between(path.name):
                wanted = f"%0{len(digits)}d" if digits.startswith("0") else "%d"
                return f"; {printable(path.name)} is there, whose number is written {wanted}"
        return ""


class Missing:
    """Which numbers did not come between those that came, of any number of them."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._last = -1
        self._count = 0
        self._gaps: collections.deque[range] = collections.deque(maxlen=_KEPT)

    def take(self, number: int) -> None:
        """Notes that a number came: the next, one that was late, or a camera's that counts anew."""
        if self._first is None:
            self._first = number
        elif number > self._last + 1:
            self._gaps.append(range(self._last + 1, number))
            self._count += len(self._gaps[-1])
        elif number <= self._last and self._was_late(number):
            return
        self._last = number

    def tell(self, pattern: Pattern) -> None:
        """Says which numbers are missing."""
        if self._count:
            gaps = [str(g[0]) if len(g) == 1 else f"{g[0]} to {g[-1]}" for g in self._gaps]
            shown = ", ".join(gaps[:_SHOWN]) + ", …" * (len(gaps) > _SHOWN)
            note(
                f"warning: {printable(str(pattern))}: between {self._first} and {self._last} "
                f"{self._count} of the numbers are missing: {shown}"
            )

    def _was_late(self, number: int) -> bool:
        for place, gap in enumerate(self._gaps):
            if number in gap:
                parts = [range(gap[0], number), range(number + 1, gap[-1] + 1)]
                kept = [*self._gaps]
                kept[place : place + 1] = [part for part in parts if part]
                self._gaps = collections.deque(kept, maxlen=_KEPT)
                self._count -= 1
                return True
        return False
