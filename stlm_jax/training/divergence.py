"""Trainings whose numbers became infinite or nan: one that is stopped says so in its folder."""

from typing import TYPE_CHECKING

import jax

from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.progress import note
from stlm_jax.workdir import DIVERGED, newest_step

if TYPE_CHECKING:
    from stlm_jax.training.members import Member


class NotFiniteError(Exception):
    """A number of the training is infinite or nan; the text says which, and of which step."""


def told(member: "Member", error: NotFiniteError) -> str:
    """What went wrong, and what is left, in a line without the member's name."""
    last = newest_step(member.folder)
    good = "no checkpoint was saved" if last is None else f"the last good is step {last}"
    rate = member.run.config.optimizer.learning_rate
    return f"{error}, {good}; try a lower config.optimizer.learning_rate (now {rate:g})"


def record(member: "Member", error: NotFiniteError) -> None:
    """Says that a member of several is stopped, here and in its folder.

    Of several processes the first does.
    """
    text = told(member, error)
    if jax.process_index() == 0:
        write_json(member.folder / DIVERGED, {"reason": text})
    note(f"{member.label}: {text}; it is stopped, the others go on")


def diverged(member: "Member") -> bool:
    """Whether it was stopped so, in this or an earlier start."""
    return (member.folder / DIVERGED).is_file()
