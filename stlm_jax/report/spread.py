"""A metric over the seeds of a setting."""

import math
import statistics
from typing import NamedTuple

from stlm_jax.report.tables import percent


class Spread(NamedTuple):
    """A metric over seeds, fractions of 1.

    Attributes:
        mean: over the runs; nan where one has no value.
        std: the sample standard deviation (n − 1); nan likewise, and of one run.
        values: of every run.
    """

    mean: float
    std: float
    values: list[float]

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of one value or more."""
        if not values or any(map(math.isnan, values)):
            return cls(math.nan, math.nan, values)
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), std, values)

    @property
    def text(self) -> str:
        """In per cent, as `93.00 ± 3.00`; `-` of nan."""
        if math.isnan(self.std):
            return percent(self.mean)
        return f"{percent(self.mean)} ± {percent(self.std)}"
