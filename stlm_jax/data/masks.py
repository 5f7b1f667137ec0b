"""What a ground-truth file means: which of its pixels are anomalous.

One rule for all, `config.data.mask`:

auto       what the file itself shows: an alpha channel that varies tells (of painted pixels black
           ones are background where others are not); in a palette image all colours but black
           count; small whole numbers (up to 32) are those of defect classes, all but 0 count; grey
           values or colours that fill areas are classes likewise; any other value counts from half
           of the file's largest on, so that 0/255, 16-bit, soft and lossy masks read alike
nonzero    every pixel that is neither black nor wholly transparent
threshold  brightness from half of the file's largest on, transparent pixels being black
alpha      opacity from half of the file's largest on; a file without alpha is refused
palette    every number of the palette but 0; a file without a palette is refused
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

AUTO, NONZERO, THRESHOLD, ALPHA, PALETTE = RULES = (
    "auto", "nonzero", "threshold", "alpha", "palette",
)  # fmt: skip
MOST_CLASSES = 32  # a mask without larger values holds numbers of defect classes
_COLOURFUL = 8  # channels of greys differ by less than this part of the largest, by rounding
_NOISE = 8  # so near to black and to white an encoder's ringing comes
_LOSSY = ("JPEG", "MPO", "WEBP")


class Mask(NamedTuple):
    """A ground-truth file.

    Attributes:
        values: of its pixels, (H, W) float32; of a palette's colours 0 or 1.
        marked: which are anomalous, (H, W) bool.
        classes: whether every value but 0 counts, rather than large ones.
    """

    values: np.ndarray
    marked: np.ndarray
    classes: bool

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to ask: it holds two values, or numbers of classes."""
        ends = (self.values == 0) | (self.values == self.values.max())
        return bool(ends.all()) or holds_class_numbers(self.values)


def mask_of(image: Image.Image, rule: str, kind: str | None = None) -> Mask:
    """What an upright image says by `rule`; `kind` is the file's, as PIL calls it.

    Raises:
        ValueError: where the rule reads what the image has not.
    """
    if rule == PALETTE:
        if image.mode not in ("P", "PA"):
            raise ValueError("it has no palette, which config.data.mask=palette reads")
        index = np.asarray(image)
        values = (index if index.ndim == 2 else index[..., 0]).astype(np.float32)
        return Mask(values, values > 0, True)
    if rule == ALPHA:
        if not image.has_transparency_data:
            raise ValueError("it has no alpha channel, which config.data.mask=alpha reads")
        values = _alpha(image)
        return Mask(values, _large(values), False)
    if is_deep(image):
        values = deep_values(image)
    elif rule == AUTO:
        values = _telling(image)
    else:
        values = _over_black(image, _brightness(image) if rule == THRESHOLD else _strongest(image))
    classes = rule == NONZERO or (rule == AUTO and _holds_classes(values, kind in _LOSSY))
    return Mask(values, values > 0 if classes else _large(values), classes)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has one channel of more than eight bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def deep_values(image: Image.Image) -> np.ndarray:
    """The single channel of a 16-bit, 32-bit or float image, float32."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a pixel is infinite or not a number")
    return values


def holds_class_numbers(values: np.ndarray) -> bool:
    """Whether values are small whole numbers, so that each but 0 is a defect."""
    return bool(values.max() <= MOST_CLASSES and (values == np.rint(values)).all())


def _large(values: np.ndarray) -> np.ndarray:
    return (values >= values.max() / 2) & (values > 0)


def _holds_classes(values: np.ndarray, lossy: bool) -> bool:
    """Whether every value but 0 counts: whether none below half of the largest is a soft edge."""
    if holds_class_numbers(values):
        return True
    low = np.unique(values[(values > 0) & ~_large(values)])
    if not low.size or low.size > MOST_CLASSES or values.min() != 0 or lossy:
        return False
    top = values.max()
    if low[0] < _NOISE and ((values < top) & (values > top - _NOISE)).any():
        return False  # ringing on both sides of an edge: the mask was a JPEG once
    # The pixels of a soft edge lie between darker and brighter ones, those of an area do not.
    is_soft = (ndimage.minimum_filter(values, 3) < values) & (
        ndimage.maximum_filter(values, 3) > values
    )
    return all(is_soft[values == value].mean() <= 0.5 for value in low)


def _telling(image: Image.Image) -> np.ndarray:
    """The value of every pixel, of whatever in the image tells defects."""
    values = _brightness(image)
    if image.mode not in ("1", "L", "LA"):
        channels = np.asarray(_opaque(image).convert("RGB"))
        strongest = channels.max(-1)
        if int((strongest - channels.min(-1)).max()) * _COLOURFUL > strongest.max():
            values = strongest.astype(np.float32)
    if image.mode in ("P", "PA"):
        values = (values > 0).astype(np.float32)
    if not image.has_transparency_data:
        return values
    alpha = _alpha(image)
    if alpha.any() and (alpha == alpha.flat[0]).all():
        return values
    painted = values[alpha > 0]
    if painted.any() and not painted.all():
        return values * (alpha > 0) if image.mode in ("P", "PA") else _over_black(image, values)
    return alpha


def _brightness(image: Image.Image) -> np.ndarray:
    return np.asarray(_opaque(image).convert("L"), np.float32)


def _strongest(image: Image.Image) -> np.ndarray:
    """The largest channel, which blue has as well as red, unlike brightness."""
    return np.asarray(_opaque(image).convert("RGB")).max(-1).astype(np.float32)


def _opaque(image: Image.Image) -> Image.Image:
    """The image without its alpha channel."""
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image


def _alpha(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA").getchannel("A"), np.float32)


def _over_black(image: Image.Image, values: np.ndarray) -> np.ndarray:
    return values * (_alpha(image) / 255) if image.has_transparency_data else values
