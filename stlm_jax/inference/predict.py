"""Anomaly maps and scores of images outside the data set, whole or tile by tile."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from stlm_jax.data import dataset
from stlm_jax.data.folders import list_images
from stlm_jax.data.images import read_image, resize_map
from stlm_jax.data.reader import View, readable
from stlm_jax.data.sources.registry import ALL
from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.overlay import MapPictures
from stlm_jax.inference import calibration, tiling
from stlm_jax.inference.predict_views import require_finite_maps
from stlm_jax.inference.predictor import Predictor
from stlm_jax.inference.scores import largest, mean_of_largest
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically, write_json
from stlm_jax.runtime.progress import note, track
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import (
    PREDICTIONS,
    RESULTS,
    SCORES_CSV,
    SCORES_JSON,
    check_same_run,
    trained_categories,
)

Scores = dict[str, float]
Prediction = tuple[int, MapPictures, Scores]  # of the image of that number
_MAPS, _KINDS = ("map", "map_without_fa"), ("score", "score_without_fa")


def predict(config: ml_collections.ConfigDict, workdir: Path) -> list[dict[str, Any]]:
    """Predicts `config.predict.input`, an image or a folder of images, with one category's model.

    Writes into `results/predict/<category>/`: `<name>_map.png` (16-bit grey, 65535 where the map
    is 1) and `<name>_overlay.png`, both of the image's own size, `scores.csv` and `scores.json`.

    Args:
        config: of the run.
        workdir: its folder.

    Returns:
        One {`image`, `score`, `score_without_fa`, `map`, `overlay`} an image, and of a calibrated
        category `normalised_score`, above 0.5 where `is_anomalous`. Tiles are not judged:
        thresholds are of whole images.
    """
    category = _category(config, workdir)
    paths = input_images(config.predict.input)
    check_same_run(workdir, config)
    directory = workdir / RESULTS / PREDICTIONS / category
    predictor = Predictor(config)
    predictor.load(workdir / category)
    names = _unique_stems(paths)
    known = _calibration(config, workdir / category)
    scale = Scale.of(known.pixel_threshold if known else None)
    predictions = (predict_tiled if config.predict.tile else predict_whole)(
        config, predictor, paths, scale
    )
    rows: list[dict[str, Any]] = []
    for index, pictures, scores in track(predictions, f"predict {category}", len(paths)):
        judged = _judge(known, scores["score"]) if known else {}
        written = pictures.save(directory, names[index])
        rows.append({"image": str(paths[index]), **scores, **judged, **written})
    if not rows:
        raise UserError(f"config.predict.input={config.predict.input}: no image can be read")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(directory / SCORES_CSV, table.getvalue())
    write_json(directory / SCORES_JSON, rows)
    for row in rows:
        print(f"{row['score']:.4f}  {row['image']}")
    note(f"written to {directory}")
    return rows


def predict_whole(
    config: ml_collections.ConfigDict, predictor: Predictor, paths: Sequence[Path], scale: Scale
) -> Iterator[Prediction]:
    """Every image as a whole: the pictures of its map, and its scores."""
    numbers: list[int] = []

    def views() -> Iterator[View]:
        for index, view in dataset.image_reader(config).views(paths):
            numbers.append(index)
            yield view

    for place, maps in enumerate(predictor(views())):
        index = numbers[place]
        require_finite_maps(maps._asdict(), str(paths[index]))
        # Read again: keeping full-size images until their batch is done takes too much memory.
        image = read_image(paths[index], None)
        pictures = MapPictures(image, scale)
        pictures.add(0, resize_map(maps.map, image.shape[:2]))
        yield index, pictures, {kind: float(getattr(maps, kind)) for kind in _KINDS}


def predict_tiled(
    config: ml_collections.ConfigDict, predictor: Predictor, paths: Sequence[Path], scale: Scale
) -> Iterator[Prediction]:
    """As `predict_whole`, every image cut into overlapping tiles of `config.predict.tile`.

    A tile is seen as an image of its own; the maps are blended. Scores are of the blended map.
    """
    skips = dataset.skips(config)
    for index, image in readable(paths, lambda path: read_image(path, None), skips, ahead=0):
        pictures = MapPictures(image, scale)
        name = str(paths[index])
        yield index, pictures, _predict_tiles(config, predictor, image, pictures, name)


def _predict_tiles(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    image: np.ndarray,
    pictures: MapPictures,
    name: str,
) -> Scores:
    tile, top_k = config.predict.tile, config.evaluate.score_top_k
    height, width = image.shape[:2]
    boxes = tiling.tiles(height, width, tile)
    reader = dataset.image_reader(config)
    views = (reader.view_of(Image.fromarray(box.of(image))) for box in boxes)
    maps = (
        np.stack([resize_map(getattr(result, kind), box.shape) for kind in _MAPS], -1)
        for result, box in zip(predictor(views), boxes, strict=True)
    )  # each (h, w, 2)
    highest = [np.empty(0, np.float32)] * len(_KINDS)
    # The pictures overwrite the image; no tile that is yet to be seen reaches above a done band.
    for first, band in tiling.blended_bands(height, width, tile, maps):
        require_finite_maps({"map": band}, name)
        pictures.add(first, band[..., 0])
        for kind in range(len(_KINDS)):
            highest[kind] = largest([highest[kind], band[..., kind].ravel()], top_k)
    scores = (float(mean_of_largest(values, top_k)) for values in highest)
    return dict(zip(_KINDS, scores, strict=True))


def _category(config: ml_collections.ConfigDict, workdir: Path) -> str:
    """The one category whose model predicts."""
    categories: Sequence[str] = config.data.categories
    if tuple(categories) == (ALL,):
        categories = trained_categories(workdir)
        if not categories:
            raise UserError(f"{workdir}: no category was trained; train first (--mode=train)")
    if len(categories) != 1:
        raise UserError(
            f"prediction needs one category of {', '.join(categories)}: choose with "
            f"--config.data.categories={categories[0]}"
        )
    return categories[0]


def _calibration(config: ml_collections.ConfigDict, folder: Path) -> Calibration | None:
    known = calibration.load(folder, config)
    if known is None:
        note(f"{folder.name}: no threshold is stored; --mode=train, run again, estimates one")
    elif config.predict.tile:
        note(f"{folder.name}: the threshold is of whole images, tiles are not judged by it")
        return None
    return known


def _judge(known: Calibration, score: float) -> dict[str, float]:
    return {
        "normalised_score": float(known.normalise(score)),
        "is_anomalous": score > known.threshold,
    }


def input_images(name: str) -> list[Path]:
    """The image files that `config.predict.input` names, sorted."""
    if not name:
        raise UserError(
            "config.predict.input is empty: give an image or a folder, --config.predict.input=PATH"
        )
    path = Path(name)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"config.predict.input={name}: no such file or folder")
    images = list_images(path)
    if not images:
        raise UserError(f"config.predict.input={name}: the folder holds no image")
    return images


def _unique_stems(paths: list[Path]) -> list[str]:
    """File names without suffix; with it where two files differ in nothing else."""
    stems = [path.stem for path in paths]
    return [
        path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_") for path in paths
    ]
