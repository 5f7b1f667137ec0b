"""How an image of any shape becomes the square that the network sees, and a map goes back."""

from typing import NamedTuple

from PIL import Image

SQUASH, PAD = "squash", "pad"
GEOMETRIES = (SQUASH, PAD)
FILL = 114  # published: what is shown where a training image was turned away; and in padding


class Box(NamedTuple):
    """A part of an image in pixels; right and bottom are the first column and row behind it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, pixels):
        """That part of an array (H, W, …)."""
        return pixels[self.top : self.bottom, self.left : self.right]


def content_box(image_size: tuple[int, int], side: int, geometry: str) -> Box:
    """Where in the square an image of `image_size`, (width, height), lies.

    With `squash`, as published, everywhere; with `pad` in the middle, its longer side filling the
    square's.
    """
    if geometry == SQUASH:
        return Box(0, 0, side, side)
    longer = max(image_size)
    width, height = (max(1, round(length * side / longer)) for length in image_size)
    left, top = (side - width) // 2, (side - height) // 2
    return Box(left, top, left + width, top + height)


def to_square(image: Image.Image, side: int, geometry: str) -> tuple[Image.Image, Box]:
    """The square that shows an RGB image, resized bilinearly, and where in it the image lies."""
    box = content_box(image.size, side, geometry)
    size = (box.right - box.left, box.bottom - box.top)
    content = image.resize(size, Image.Resampling.BILINEAR)
    if size == (side, side):
        return content, box
    square = Image.new("RGB", (side, side), (FILL,) * 3)
    square.paste(content, (box.left, box.top))
    return square, box
