"""What is known of a program once it was compiled."""

import dataclasses
import math
from typing import Any

TRAIN, FROM_STORE, STORE, EVALUATION = "train", "train from store", "teacher store", "evaluation"
PROGRAMS = (TRAIN, FROM_STORE, STORE, EVALUATION)
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Measured:
    """One program, per device and call.

    Attributes:
        name: one of `PROGRAMS`.
        batch: images in a call, on all of its devices.
        devices: that share a call.
        trainings: that make a step in a call; 0: it is none of training.
        held: bytes of what it is given, by what that is: `parameters`, `optimiser`, `teacher`,
            `inputs`.
        temporaries: bytes that it needs while it runs; nan where it was not compiled.
        other: bytes of its code, of results that do not take the place of an argument, and of
            padding.
        peak: bytes of all this; where the compiler refused, what it said to need.
        flops: operations; nan where it was not compiled.
        accessed: bytes between memory and chip, by the compiler's count.
        traffic: by kind of collective its number and bytes.
        loops: in what is counted once.
        seconds: tracing and compiling took.
        refusal: the compiler's words, where it found no room.
    """

    name: str
    batch: int
    devices: int
    held: dict[str, float]
    trainings: int = 0
    temporaries: float = math.nan
    other: float = math.nan
    peak: float = math.nan
    flops: float = math.nan
    accessed: float = math.nan
    traffic: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    loops: int = 0
    seconds: float = math.nan
    refusal: str = ""

    def fits(self, limit: float) -> bool:
        """Whether it runs in so many bytes; where the limit is not known, it does."""
        return not self.refusal and not self.peak > limit

    def as_json(self) -> dict[str, Any]:
        """The fields, for the pipe between the processes."""
        return dataclasses.asdict(self)
