"""What a person is told of a prediction: a line for an image, and the numbers at the end."""

from stlm_jax.prediction.judge import DEFECTIVE, Row
from stlm_jax.prediction.seen import FAILED
from stlm_jax.runtime.progress import note, say
from stlm_jax.runtime.text import printable

ALL_JUDGED, SOME_SKIPPED = 0, 1


class Tally:
    """Counts rows, and prints them.

    Attributes:
        judged: how many images were judged.
        bad: how many could not be, now or before.
    """

    def __init__(self, quiet: bool):
        """Prints no images where `quiet`."""
        self._quiet = quiet
        self.judged = self.bad = self._there = self._defective = 0
        self._is_judging, self._ms = False, 0.0

    def add(self, row: Row) -> None:
        """Counts and prints an image that is done."""
        path = printable(row["path"])
        if "error" in row:
            self.bad += 1
            note(f"left out: {printable(row['error'])}")
            return
        self.judged += 1
        self._defective += row["verdict"] == DEFECTIVE
        self._is_judging |= row["verdict"] is not None
        if self.judged > 1:  # the first waits for the compiler
            self._ms += row["ms"]
        if not self._quiet:
            verdict = "" if row["verdict"] is None else f"{row['verdict']:9}  "
            say(f"{row['score']:.4f}  {verdict}{path}")

    def knew(self, state: str) -> None:
        """Counts an image that needs no work."""
        if state == FAILED:
            self.bad += 1
        else:
            self._there += 1

    @property
    def status(self) -> int:
        """The exit status."""
        return SOME_SKIPPED if self.bad else ALL_JUDGED

    def tell(self, where: object) -> None:
        """Prints the numbers; `where` is the file of the rows."""
        parts = [f"{self.judged} judged"]
        if self._is_judging:
            parts[0] += f", {self._defective} of them defective"
        if self.judged > 1:
            parts.append(f"{self._ms / (self.judged - 1):.1f} ms an image in the model")
        if self._there:
            parts.append(f"{self._there} were there already")
        if self.bad:
            parts.append(f"{self.bad} could not be judged")
        note(f"{'; '.join(parts)}: {printable(str(where))}")
