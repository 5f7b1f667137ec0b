"""Anomaly maps and scores of images outside the data set, whole or tile by tile."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image

from stlm_jax.config.rules import TRAIN
from stlm_jax.data import dataset, depth
from stlm_jax.data.images import read_image, resize_map
from stlm_jax.data.inspection import unlike_training
from stlm_jax.data.reader import View, readable
from stlm_jax.data.sources.registry import ALL
from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.overlay import MapPictures
from stlm_jax.inference import calibration, tiling
from stlm_jax.inference.inputs import check_output, find_inputs
from stlm_jax.inference.predict_views import ImageMaps, require_finite_maps
from stlm_jax.inference.predictor import Predictor
from stlm_jax.inference.score_tables import score_tables
from stlm_jax.inference.scores import largest, mean_of_largest
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note, say, track
from stlm_jax.runtime.text import as_utf8, printable
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import LOCK, PREDICTIONS, RESULTS, check_same_run, trained_categories

Scores = dict[str, float]
Prediction = tuple[int, MapPictures, Scores]  # of the image of that number
_IN_USE = "writes predictions into it: wait for its end, or give another --config.predict.output"
_KINDS = {"score": "map", "score_without_fa": "map_without_fa"}  # scores, and what they are of


def predict(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Predicts `config.predict.input`, an image or a folder of images, with one category's model.

    Writes into `config.predict.output`, by default `results/predict/<category>/` of the work folder
    `workdir`, `scores.csv` and `scores.json`, and for the image at `a/000.png` below the input
    `a/000.png.map.png` (16-bit grey, 65535 where the map is 1) and `a/000.png.overlay.png`, both
    of the image's own size. What is there is written over only with `config.predict.overwrite`.

    A row of the tables is {`image`, `score`, `score_without_fa`, `map`, `overlay`}, and of a
    calibrated category `normalised_score`, above 0.5 where `is_anomalous`. Tiles are not judged:
    thresholds are of whole images. A model without FA, or of one stream, has no score without it.
    """
    category = _category(config, workdir)
    output = path_of(config.predict.output or workdir / RESULTS / PREDICTIONS / category)
    inputs = find_inputs(config.predict.input, output)
    check_same_run(workdir, config)
    check_output(output, inputs, config.predict.overwrite)
    learned, config = config.data.depth == TRAIN, depth.resolved(config, workdir / category)
    paths = [one.path for one in inputs]
    if learned and (remark := unlike_training(paths, config.data.depth)):
        note(f"warning: {remark}")
    predictor = Predictor(config)
    step = predictor.load(workdir / category)
    known = calibration.load(workdir / category, config, step)
    _note_what_judges(known, category, config.predict.tile > 0)
    judging = None if config.predict.tile else known
    # Whether tiles are judged or not, pictures have the colours of the report.
    scale = Scale.of(known.pixel_threshold if known else None)
    predictions = (predict_tiled if config.predict.tile else predict_whole)(
        config, predictor, paths, scale
    )
    count = defective = 0
    try:
        # Hidden, as a folder of images may be called `lock`.
        with only_here(output / f".{LOCK}", _IN_USE), score_tables(output) as add_row:
            check_output(output, inputs, config.predict.overwrite)  # as another may have left it
            for index, pictures, scores in track(predictions, f"predict {category}", len(inputs)):
                judged = _judge(judging, scores["score"]) if judging else {}
                written = pictures.save(output, inputs[index].name)
                image = inputs[index].path
                names = {kind: as_utf8(path) for kind, path in written.items()}
                add_row({"image": as_utf8(image), **scores, **judged, **names})
                say(_line(scores["score"], judged, printable(image)))
                count += 1
                defective += bool(judged.get("is_anomalous"))
            if not count:
                raise UserError(
                    f"config.predict.input={config.predict.input}: no image can be read"
                )
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {count} of {len(inputs)} images, whose pictures are in {output}; the "
            "same command with --config.predict.overwrite=True begins again"
        ) from None
    if judging:
        note(f"{defective} of {count} images are defective: score above {judging.threshold:.4g}")
    note(f"written to {output}")


def _line(score: float, judged: Mapping[str, float], image: str) -> str:
    """What is printed of an image: score, verdict where there is a threshold, name."""
    verdict = ""
    if "is_anomalous" in judged:
        verdict = "defective  " if judged["is_anomalous"] else "good       "
    return f"{score:.4f}  {verdict}{image}"


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
        image = read_image(paths[index], None, config.data.depth)
        pictures = MapPictures(image, scale)
        pictures.add(0, resize_map(maps.map, image.shape[:2]))
        scores = {kind: getattr(maps, kind) for kind in _KINDS}
        yield index, pictures, {k: float(score) for k, score in scores.items() if score is not None}


def predict_tiled(
    config: ml_collections.ConfigDict, predictor: Predictor, paths: Sequence[Path], scale: Scale
) -> Iterator[Prediction]:
    """As `predict_whole`, every image cut into overlapping tiles of `config.predict.tile`.

    A tile is seen as an image of its own; the maps are blended. Scores are of the blended map.
    """
    skips, known = dataset.skips(config), config.data.depth
    for index, image in readable(paths, lambda path: read_image(path, None, known), skips, ahead=0):
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
        np.stack([resize_map(values, box.shape) for values in _maps_of(result)], -1)
        for result, box in zip(predictor(views), boxes, strict=True)
    )  # each (h, w, 2), or 1
    highest: list[np.ndarray] = []
    # The pictures overwrite the image; no tile that is yet to be seen reaches above a done band.
    for first, band in tiling.blended_bands(height, width, tile, maps):
        require_finite_maps({"map": band}, name)
        pictures.add(first, band[..., 0])
        before = highest or [np.empty(0, np.float32)] * band.shape[-1]
        highest = [
            largest([values, band[..., kind].ravel()], top_k) for kind, values in enumerate(before)
        ]
    scores = [float(mean_of_largest(values, top_k)) for values in highest]
    return dict(zip(_KINDS, scores, strict=False))


def _maps_of(maps: ImageMaps) -> list[np.ndarray]:
    """The maps that the model has, in the order of `_KINDS`."""
    found = (getattr(maps, name) for name in _KINDS.values())
    return [values for values in found if values is not None]


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


def _note_what_judges(known: Calibration | None, category: str, tiled: bool) -> None:
    if known is None:
        note(f"{category}: no threshold is stored; --mode=train, run again, estimates one")
    elif tiled:
        note(f"{category}: the threshold is of whole images, tiles are not judged by it")


def _judge(known: Calibration, score: float) -> dict[str, float]:
    return {
        "normalised_score": float(known.normalise(score)),
        "is_anomalous": bool(known.is_anomalous(score)),
    }
