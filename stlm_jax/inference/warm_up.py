"""The first calls of a model, for which its programs are compiled: before an image waits for it."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from stlm_jax.data.geometry import Box
from stlm_jax.data.reader import View
from stlm_jax.inference.predict_views import ImageMaps, require_finite_maps


def warm_up(
    name: str, views: Callable[[list[View]], Iterator[ImageMaps]], side: int, counts: Iterable[int]
) -> None:
    """Has a model look at a grey image, so many times a call; its maps must be finite.

    Args:
        name: of the model, for messages.
        views: what calls it, such as `Detector.views`.
        side: pixels of the squares that it sees.
        counts: images in the calls.
    """
    view = View(np.full((side, side, 3), 128, np.uint8), Box(0, 0, side, side))
    for count in counts:
        for maps in views([view] * count):
            require_finite_maps(maps._asdict(), f"{name}: a grey image")
