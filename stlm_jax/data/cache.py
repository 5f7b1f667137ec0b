"""Training images: decoded ones in memory as far as a budget goes, the others on the fly."""

from collections.abc import Sequence

import numpy as np

from stlm_jax.data.images import ImageFile
from stlm_jax.data.reader import ImageReader
from stlm_jax.runtime.progress import track

GIB = 2**30


class ImageCache:
    """Images by number, each (S, S, 3) uint8 as the network sees it.

    The first ones that the budget has room for are decoded at once and kept; any other is decoded
    each time it is asked for. Several threads may ask at the same time.
    """

    def __init__(
        self, paths: Sequence[ImageFile], reader: ImageReader, budget: float, label: str = "read"
    ):
        """Decodes what `budget` bytes hold; with `reader.skip` all, to know which can be read.

        `label` is that of the progress line.
        """
        shape = (reader.size, reader.size, 3)
        room = int(min(len(paths), budget / np.prod(shape)))
        self._reader = reader
        self._kept = np.empty((room, *shape), np.uint8)
        self._files: list[ImageFile] = []
        at_once = paths if reader.skip else paths[:room]
        for index, view in track(reader.views(at_once), label, len(at_once)):
            if len(self._files) < room:
                self._kept[len(self._files)] = view.pixels
            self._files.append(paths[index])
        if not reader.skip:
            self._files += paths[room:]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`; not to be written to."""
        if index < self.kept:
            return self._kept[index]
        return self._reader.view(self._files[index]).pixels

    def file(self, index: int) -> ImageFile:
        """The file of image `index`."""
        return self._files[index]

    @property
    def kept(self) -> int:
        """How many images are in memory."""
        return min(len(self._kept), len(self._files))
