"""Many image files, one after the other, as the squares that the network sees."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from stlm_jax.config.rules import FILE
from stlm_jax.data.geometry import SQUASH, Box, to_square
from stlm_jax.data.images import ImageError, ImageFile, open_rgb
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.progress import note

S = TypeVar("S")
T = TypeVar("T")


class View(NamedTuple):
    """What the network sees of an image.

    Attributes:
        pixels: (S, S, 3) uint8.
        box: where in it the image lies; elsewhere is padding.
    """

    pixels: np.ndarray
    box: Box


@dataclass(frozen=True)
class ImageReader:
    """How images are read.

    Attributes:
        size: side of the square in pixels.
        geometry: `squash` or `pad`.
        skip: whether files that cannot be read are left out, each with a note, or raise.
        depth: of values of more than eight bits, see there.
    """

    size: int
    geometry: str = SQUASH
    skip: bool = False
    depth: str = FILE

    def view(self, path: ImageFile) -> View:
        """One file."""
        return self.view_of(open_rgb(path, self.depth))

    def view_of(self, image: Image.Image) -> View:
        """An RGB image in memory."""
        square, box = to_square(image, self.size, self.geometry)
        return View(np.array(square), box)

    def views(self, paths: Sequence[ImageFile]) -> Iterator[tuple[int, View]]:
        """`readable` views of files."""
        return readable(paths, self.view, self.skip)


def readable(
    files: Sequence[S], read: Callable[[S], T], skip: bool, ahead: int = 16
) -> Iterator[tuple[int, T]]:
    """What `read` gives of files, in order, each with its number; read in threads.

    At most `ahead` results wait to be taken. Where `read` raises ImageError, `skip` decides whether
    the file is left out, with a note, or the error raised.
    """

    def attempt(file: S) -> T | ImageError:
        try:
            return read(file)
        except ImageError as error:
            return error

    skipped = 0
    for index, result in enumerate(in_threads(attempt, files, ahead)):
        if not isinstance(result, ImageError):
            yield index, result
        elif skip:
            skipped += 1
            note(f"left out: {result}")
        else:
            raise result
    if skipped:
        note(f"{skipped} of {len(files)} images were left out, for they cannot be read")
