"""Anomaly maps and scores of images outside the data set."""

import csv
import io
import json
from pathlib import Path

import ml_collections

from stlm_jax import calibration, run_info
from stlm_jax.calibration import Calibration
from stlm_jax.data.layout import list_images
from stlm_jax.data.sources import ALL
from stlm_jax.errors import UserError
from stlm_jax.evaluate import RESULTS
from stlm_jax.files import write_atomically
from stlm_jax.finding import find_in_squares, find_in_tiles
from stlm_jax.predictor import Predictor
from stlm_jax.progress import ProgressLine, note
from stlm_jax.settings import Settings
from stlm_jax.trained import CHECKPOINTS


def predict(settings: Settings) -> list[dict[str, str | float]]:
    """Predict `config.predict.input`, an image or a folder of images, with one category's model.

    Writes into `results/predict/<category>/`: `<name>_map.png` (16-bit grey, 65535 where the map
    is 1) and `<name>_overlay.png`, both of the image's own size, `scores.csv` and `scores.json`.

    Returns:
        One {`image`, `score`, `score_without_fa`, `map`, `overlay`} an image, and of a calibrated
        category `normalised_score`, above 0.5 where `is_anomalous`. Tiles are not judged:
        thresholds are of whole images.

    Raises:
        UserError: no input, several categories, no checkpoint, or an unreadable image.
    """
    config, workdir = settings.config, settings.workdir
    categories = config.data.categories
    if tuple(categories) == (ALL,):
        categories = sorted(place.parent.name for place in workdir.glob(f"*/{CHECKPOINTS}"))
        if not categories:
            raise UserError(f"{workdir}: no category was trained; train first (--mode=train)")
    if len(categories) != 1:
        raise UserError(
            f"prediction needs one category of {', '.join(categories)}: choose with "
            f"--config.data.categories={categories[0]}"
        )
    paths = input_images(config.predict.input)
    run_info.check_same_run(workdir, config)
    (category,) = categories
    directory = workdir / RESULTS / "predict" / category
    predictor = Predictor(config)
    predictor.load(workdir / category)
    names = _unique_stems(paths)
    finder = find_in_tiles if config.predict.tile else find_in_squares
    progress = ProgressLine(f"predict {category}", len(paths), unit="image")
    known = _calibration(config, workdir / category)
    rows: list[dict[str, str | float]] = []
    for index, (pictures, scores) in finder(config, predictor, paths):
        judged = _judge(known, scores["score"]) if known else {}
        written = pictures.save(directory, names[index])
        rows.append({"image": str(paths[index]), **scores, **judged, **written})
        progress.update(index + 1)
    progress.close()
    if not rows:
        raise UserError(f"config.predict.input={config.predict.input}: no image can be read")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(directory / "scores.csv", table.getvalue())
    write_atomically(directory / "scores.json", json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(f"{row['score']:.4f}  {row['image']}")
    note(f"written to {directory}")
    return rows


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
    """The image files that `config.predict.input` names, sorted.

    Raises:
        UserError: it is empty, missing, or a folder without images.
    """
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
