"""Differences of two settings, seeds paired with seeds and images with images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
ONE_SEED = "over test images alone, as there is one seed"
NO_IMAGES = "over seeds alone, as there are no replicates"
NEITHER = "left out, as there is one seed and there are no replicates"


@dataclass(frozen=True)
class Difference:
    """A setting's metric less the baseline's, in fractions of 1; nan where undefined.

    Attributes:
        estimate: on all images, the mean over the seeds.
        low: end of the 95 % interval.
        high: the other.
        p: of a difference as large where there is none, two-sided.
        seeds: how many pairs there are.
        of_seeds: the part of the standard error that more seeds would make less.
        of_images: the part that more test images would.
        remark: what the interval is alone over; "" where it is over seeds and images.
    """

    estimate: float
    low: float
    high: float
    p: float
    seeds: int
    of_seeds: float
    of_images: float
    remark: str = ""

    @property
    def is_noise(self) -> bool:
        """Whether zero lies in the interval, or there is none."""
        return not (self.low > 0 or self.high < 0)


UNDEFINED = Difference(math.nan, math.nan, math.nan, math.nan, 0, math.nan, math.nan)


def paired_difference(
    differences: np.ndarray, replicates: Sequence[np.ndarray] | None = None
) -> Difference:
    """The difference of the mean over categories, with its interval over seeds and images.

    The squared standard error is s²/n + v: s is the sample deviation over the seeds, v the variance
    over replicates of the seeds' mean, all seeds on the same images. Images of categories are
    drawn apart, so that v is the sum of the categories' divided by their number squared. What a
    seed does to an image counts in both, by which the interval is rather too wide. Student's t has
    Welch and Satterthwaite's degrees of freedom, where v has many; without v the interval is that
    of the paired t-test.

    Args:
        differences: (n, C) of n seeds in C categories.
        replicates: of each category (n, B) the same on drawn images, nan where undefined; None
            where there are none.
    """
    of_seed = np.asarray(differences, np.float64).mean(axis=1)
    if not len(of_seed) or not np.isfinite(of_seed).all():
        return UNDEFINED
    number, estimate = len(of_seed), float(of_seed.mean())
    seeds = float(of_seed.var(ddof=1)) / number if number > 1 else math.nan
    variances = [_variance(np.mean(drawn, axis=0)) for drawn in replicates or ()]
    images = sum(variances) / len(variances) ** 2 if variances else math.nan
    remark = ""
    if math.isnan(seeds) or math.isnan(images):
        remark = NO_IMAGES if number > 1 else NEITHER if math.isnan(images) else ONE_SEED
    known = [part for part in (seeds, images) if not math.isnan(part)]
    error = math.sqrt(sum(known)) if known else math.nan
    freedom = math.inf  # of images alone
    if number > 1 and seeds > 0:
        freedom = (number - 1) * (error**2 / seeds) * (error**2 / seeds)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(estimate) / error, freedom)) if error else float(not estimate)
    parts = math.sqrt(seeds), math.sqrt(images)  # nan of nan
    return Difference(estimate, estimate - reach, estimate + reach, p, number, *parts, remark)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's p-values: of several comparisons, the chance that any is found where there is none.

    A comparison whose p-value is nan is left out.
    """
    rising = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, largest = {}, 0.0
    for place, (p, name) in enumerate(rising):
        largest = max(largest, min(1.0, (len(rising) - place) * p))
        adjusted[name] = largest
    return adjusted


def _variance(drawn: np.ndarray) -> float:
    """Sample variance of the defined replicates (B,); nan where most are not."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < 2 or 2 * len(defined) <= len(drawn):
        return math.nan
    return float(defined.var(ddof=1, dtype=np.float64))
