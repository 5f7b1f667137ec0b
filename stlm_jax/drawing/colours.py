"""The colours of anomaly maps and of what is drawn over images, the same in every picture."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from scipy import ndimage

from stlm_jax.runtime.errors import UserError

GROUND_TRUTH = (0, 255, 213)
ABOVE_THRESHOLD = (255, 255, 255)
OPACITY = 0.85  # of the map over an image, where the scale ends
OUTLINE = 2  # pixels


@dataclass(frozen=True)
class Scale:
    """The colour scale of maps.

    Attributes:
        vmin: the map value at the dark end, where the overlay is transparent.
        vmax: the map value at the bright end; values beyond either end are clipped.
        threshold: the map value in the middle, on either side of which the scale is linear; what
            is above is outlined. None: no outline, one linear scale.
    """

    vmin: float = 0.0
    vmax: float = 1.0
    threshold: float | None = None

    def __post_init__(self):
        if not self.vmin < self.vmax:
            raise UserError(f"colour scale {self.vmin}..{self.vmax} is empty; raise its upper end")
        if self.threshold is not None and not self.vmin < self.threshold < self.vmax:
            raise UserError(
                f"threshold {self.threshold} is not inside the colour scale "
                f"{self.vmin}..{self.vmax}; widen it"
            )

    @classmethod
    def of(cls, threshold: float | None) -> Self:
        """The scale of a model: maps of 0..1 and its pixel threshold, finite, if it has one.

        It is widened where it would not hold the threshold inside.
        """
        if threshold is None or 0 < threshold < 1:
            return cls(threshold=threshold)
        return cls(min(0.0, threshold - 1), max(1.0, threshold + 1), threshold)

    @property
    def ticks(self) -> tuple[float, float, float]:
        """The map values at the dark end, the middle and the bright end."""
        middle = (self.vmin + self.vmax) / 2 if self.threshold is None else self.threshold
        return self.vmin, middle, self.vmax

    def share(self, values: np.ndarray) -> np.ndarray:
        """Map values as positions on the scale, 0..1, of any shape."""
        return np.interp(values, self.ticks, (0.0, 0.5, 1.0))


def colours(shares: np.ndarray) -> np.ndarray:
    """Positions 0..1 on the colour scale, (…), as uint8 RGB, (…, 3)."""
    table = _inferno()
    return table[np.clip((np.asarray(shares) * len(table)).astype(int), 0, len(table) - 1)]


def draw_map(values: np.ndarray, scale: Scale) -> np.ndarray:
    """A map, (h, w) real, in the colours of the scale, (h, w, 3) uint8."""
    return colours(scale.share(values))


def blend_map(picture: np.ndarray, values: np.ndarray, scale: Scale) -> np.ndarray:
    """A map (h, w) over a picture (h, w, 3) uint8 in grey, the more opaque the hotter; uint8."""
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    opacity = OPACITY * scale.share(values)[..., None]
    return np.rint((1 - opacity) * grey + opacity * draw_map(values, scale)).astype(np.uint8)


def outline_of(above: np.ndarray) -> np.ndarray:
    """The inner edge, `OUTLINE` pixels wide, of what is true in (h, w)."""
    # A region that the picture cuts off has no edge there.
    return above & ~ndimage.binary_erosion(above, iterations=OUTLINE, border_value=1)


def draw_overlay(
    picture: np.ndarray, truth: np.ndarray | None, values: np.ndarray, scale: Scale
) -> np.ndarray:
    """A map (h, w) over a picture (h, w, 3) uint8, with outlines; (h, w, 3) uint8.

    They show what is above the threshold, and the defects of `truth`, (h, w) bool, if it is known.
    """
    result = blend_map(picture, values, scale)
    if scale.threshold is not None:
        result[outline_of(values > scale.threshold)] = ABOVE_THRESHOLD
    if truth is not None and truth.any():
        outline = ndimage.binary_dilation(truth, iterations=OUTLINE)
        halo = ndimage.binary_dilation(outline) & ~outline
        result[halo] //= 3
        result[outline & ~truth] = GROUND_TRUTH
    return result


@cache
def _inferno() -> np.ndarray:
    """(256, 3) uint8: matplotlib's colour map of that name (CC0), which then need not be there."""
    with Image.open(Path(__file__).with_name("inferno.png")) as image:
        return np.asarray(image.convert("RGB"))[0]
