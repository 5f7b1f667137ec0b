"""How a mask lies on its image: their sizes, and how EXIF turns them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

UPRIGHT, TRANSPOSED = 1, 5  # EXIF orientations; from the second on width and height change places
Shape = tuple[int, ...]  # height and width
Turn = Callable[[np.ndarray], np.ndarray]

TURNS: dict[int, Turn] = {  # what makes stored pixels upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


class Frame(NamedTuple):
    """The frame of an image file.

    Attributes:
        shape: height and width, upright.
        turned: the EXIF orientation of the stored pixels; 1 where they are upright.
    """

    shape: Shape
    turned: int


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that was just opened, in 1..8; 1 where it has none."""
    found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return found if found in TURNS else UPRIGHT


def fit(shape: Shape, turned: int, image: Frame) -> tuple[Turn, str]:
    """What lays a mask on its image, and what is to be said of it, '' where they simply fit.

    Args:
        shape: of the mask, upright.
        turned: the mask's own EXIF orientation.
        image: the image's frame.

    Raises:
        ValueError: where their proportions differ.
    """
    sizes = f"is {size_text(shape)}, its image {size_text(image.shape)}"
    only_image_turned = image.turned != UPRIGHT and turned == UPRIGHT
    if shape == image.shape:
        is_told = image.turned >= TRANSPOSED and shape[0] != shape[1]
        if only_image_turned and not is_told:
            return TURNS[UPRIGHT], (
                "is taken as drawn on the upright image, which EXIF turns and the mask does not "
                "say: if it was drawn on the stored pixels, save the image without EXIF"
            )
        return TURNS[UPRIGHT], ""
    if _alike(shape, image.shape):
        return TURNS[UPRIGHT], f"{sizes}: it is resized"
    if only_image_turned and image.turned >= TRANSPOSED and _alike(shape, image.shape[::-1]):
        return TURNS[image.turned], f"{sizes}: it is turned as EXIF turns the image"
    raise ValueError(f"{sizes}, which is of other proportions")


def size_text(shape: Shape) -> str:
    """Width and height, such as 640x480."""
    return f"{shape[1]}x{shape[0]}"


def _alike(mask: Shape, image: Shape) -> bool:
    """Whether proportions are the same, but for a pixel of the mask that rounding may cost."""
    return abs(mask[1] * image[0] - mask[0] * image[1]) <= max(image)
