"""Anomaly maps and scores of image files in the images' own size, whole or tile by tile."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image

from stlm_jax import dataset, tiling
from stlm_jax.data.images import read_image, resize_map
from stlm_jax.data.reading import Reading, View, readable
from stlm_jax.inference_step import largest, mean_of_largest
from stlm_jax.map_pictures import MapPictures
from stlm_jax.predictor import Predictor

Scores = dict[str, float]
_KINDS = ("score", "score_without_fa")


def find_in_squares(
    config: ml_collections.ConfigDict, predictor: Predictor, paths: Sequence[Path]
) -> Iterator[tuple[int, tuple[MapPictures, Scores]]]:
    """Of every image, as a whole: its number, the pictures of its map, and its scores.

    Raises:
        ImageError: an image cannot be read, unless `config.data.on_error` is `skip`.
    """
    numbers: list[int] = []

    def views() -> Iterator[View]:
        for index, view in dataset.reading(config).views(paths):
            numbers.append(index)
            yield view

    for done, found in enumerate(predictor(views())):
        index = numbers[done]
        image = read_image(paths[index], None)
        pictures = MapPictures(image)
        pictures.add(0, resize_map(found.map, image.shape[:2]))
        scores = (float(found.score), float(found.score_without_fa))
        yield index, (pictures, dict(zip(_KINDS, scores, strict=True)))


def find_in_tiles(
    config: ml_collections.ConfigDict, predictor: Predictor, paths: Sequence[Path]
) -> Iterator[tuple[int, tuple[MapPictures, Scores]]]:
    """As `find_in_squares`, every image cut into overlapping tiles of `config.predict.tile`.

    A tile is seen as an image of its own; the maps are blended. Scores are of the blended map.
    """
    reading, top_k = dataset.reading(config), config.evaluate.score_top_k
    images = readable(paths, lambda path: read_image(path, None), reading.skip, ahead=0)
    for index, image in images:
        yield index, _find_in_image(image, config.predict.tile, reading, predictor, top_k)


def _find_in_image(
    image: np.ndarray, tile: int, reading: Reading, predictor: Predictor, top_k: int
) -> tuple[MapPictures, Scores]:
    height, width = image.shape[:2]
    boxes = tiling.tiles(height, width, tile)
    views = (reading.view_of(Image.fromarray(box.of(image))) for box in boxes)
    maps = (
        np.stack([resize_map(m, box.shape) for m in (found.map, found.map_without_fa)], -1)
        for found, box in zip(predictor(views), boxes, strict=True)
    )  # each (h, w, 2)
    pictures = MapPictures(image)  # no tile that is yet to be seen reaches above a finished band
    highest = [np.empty(0, np.float32)] * len(_KINDS)
    for first, band in tiling.blended_bands(height, width, tile, maps):
        pictures.add(first, band[..., 0])
        for kind in range(len(_KINDS)):
            highest[kind] = largest([highest[kind], band[..., kind].ravel()], top_k)
    scores = (float(mean_of_largest(values, top_k)) for values in highest)
    return pictures, dict(zip(_KINDS, scores, strict=True))
