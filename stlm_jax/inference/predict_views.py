"""The one way in which images go through a model: batch by batch, and back to their own shape."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from stlm_jax.data.geometry import Box
from stlm_jax.data.reader import View
from stlm_jax.inference.scores import mean_of_largest
from stlm_jax.runtime.errors import UserError

# (B, S, S, 3) uint8 to `map` (B, S, S) and `score` (B,); of our own models `map_without_fa` and
# `score_without_fa` too.
PredictFn = Callable[[np.ndarray], Mapping[str, Any]]


class ImageMaps(NamedTuple):
    """What a model says of an image.

    Attributes:
        map: (h, w) float32, of the image as it lies in the square, without padding.
        score: mean of the largest pixels of `map`.
        map_without_fa: likewise, of the map without the FA module; None of an exported model.
        score_without_fa: likewise.
    """

    map: np.ndarray
    score: np.ndarray
    map_without_fa: np.ndarray | None = None
    score_without_fa: np.ndarray | None = None


def predict_views(
    fn: PredictFn, views: Iterable[View], batch_size: int, top_k: int
) -> Iterator[ImageMaps]:
    """Predicts images, in order.

    Args:
        fn: the model.
        views: of the side that `fn` takes.
        batch_size: images in a call of `fn`, which is always given so many.
        top_k: pixels that a score is the mean of.
    """
    following = iter(views)
    begun: tuple[list[View], Mapping[str, Any]] | None = None
    while batch := list(itertools.islice(following, batch_size)):
        pixels = pad_batch(np.stack([view.pixels for view in batch]), batch_size)
        # JAX returns before the device has finished: while the caller works on the images of one
        # batch, the next is computed.
        started = batch, fn(pixels)
        if begun:
            yield from _images_of(*begun, top_k)
        begun = started
    if begun:
        yield from _images_of(*begun, top_k)


def pad_batch(images: np.ndarray, count: int) -> np.ndarray:
    """(N, …) to (count, …) by repeating the last image: every shape is a program to compile."""
    return np.pad(images, ((0, count - len(images)), *((0, 0),) * (images.ndim - 1)), mode="edge")


def _images_of(batch: list[View], result: Mapping[str, Any], top_k: int) -> Iterator[ImageMaps]:
    host = _on_host(result)
    for index, view in enumerate(batch):
        maps = ImageMaps(**{name: host[name][index] for name in ImageMaps._fields if name in host})
        yield _inside(maps, view.box, top_k)


def _on_host(result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of JAX or NumPy as NumPy's; JAX is not imported for a model that does without it."""
    for values in result.values():
        # Every transfer begins before the first is waited for.
        getattr(values, "copy_to_host_async", lambda: None)()
    return {name: np.asarray(values) for name, values in result.items()}


class NotFinite(UserError):
    """A map or score that cannot be judged; the text names the image."""


def require_finite_maps(maps: Mapping[str, Any], name: str) -> None:
    """Raises NotFinite, naming the image, where a map or score of it is not finite."""
    for values in maps.values():
        if values is not None and not np.isfinite(values).all():
            raise NotFinite(
                f"{name}: the model's anomaly map or score of it is not finite, so it cannot be "
                "judged: train the model again, or give whole weights"
            )


def _inside(maps: ImageMaps, box: Box, top_k: int) -> ImageMaps:
    """What is said of the image itself, where there is padding around it."""
    if maps.map.shape == box.shape:
        return maps
    inner = {
        name: box.of(getattr(maps, name))
        for name in ("map", "map_without_fa")
        if getattr(maps, name) is not None
    }
    scores = {
        name.replace("map", "score"): mean_of_largest(values, top_k)
        for name, values in inner.items()
    }
    return ImageMaps(**inner, **scores)
