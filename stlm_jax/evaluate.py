"""Evaluation of every category's last checkpoint on its test split."""

import math
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import numpy as np

from stlm_jax import dataset, metrics, run_info, tables
from stlm_jax.data.images import load_images, load_masks, resize_map
from stlm_jax.data.reading import View
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError
from stlm_jax.panels import write_panels
from stlm_jax.predictor import Found, Predictor
from stlm_jax.progress import ProgressLine, note
from stlm_jax.settings import Settings

RESULTS = "results"
WITHOUT_FA = "_without_fa"


def evaluate(settings: Settings) -> dict[str, dict[str, float]]:
    """Evaluate all of `config.data.categories`, write `results/` and print the table.

    The last checkpoint is evaluated, never one chosen on the test split. Each metric appears
    twice: of the FA module's map, and as `<name>_without_fa` of the product of cosine distances.

    A category without test images is left out. Where defective images have no ground truth,
    image metrics still count them and pixel metrics do not.

    Returns:
        {category: {metric: fraction}}, and the mean under `"mean"`; nothing where no category has
        test images.

    Raises:
        UserError: a category was not trained, or its images cannot be used.
    """
    config, workdir = settings.config, settings.workdir
    run_info.check_same_run(workdir, config)
    dataset.prepare(config)
    predictor = Predictor(config)
    results = {}
    for category in config.data.categories:
        predictor.load(workdir / category)
        records = dataset.split_of(config, category, "test")
        if records:
            results[category] = _evaluate_category(config, predictor, category, records, workdir)
        else:
            note(f"{category}: there is no image to test on, nothing to evaluate")
    if not results:
        return {}
    results = tables.with_mean(results)
    tables.write_results(workdir / RESULTS, results)
    print(tables.format_table(results), end="")
    note(f"written to {workdir / RESULTS}")
    return results


def _evaluate_category(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    category: str,
    records: list[Record],
    workdir: Path,
) -> dict[str, float]:
    records, found = _find(config, predictor, category, records)
    masks = load_masks(records, config.image_size)
    labels = np.array([record.label for record in records])
    known = np.array([record.has_truth for record in records])
    if not known.all():
        note(f"{category}: pixel metrics leave out {(~known).sum()} defective images without masks")
    values: dict[str, float] = {}
    by_kind = {
        "": (found.map, found.score),
        WITHOUT_FA: (found.map_without_fa, found.score_without_fa),
    }
    for suffix, (maps, scores) in by_kind.items():
        part = _measure(config.evaluate.metrics, maps, masks, scores, labels, known)
        values |= {f"{name}{suffix}": value for name, value in part.items()}
    _write_panels(config, records, masks, found, workdir / RESULTS / "panels")
    return values


def _find(
    config: ml_collections.ConfigDict, predictor: Predictor, category: str, records: list[Record]
) -> tuple[list[Record], Found]:
    """The records whose images can be read, and what the model says of them, stacked.

    Maps are (N, S, S), S = `config.image_size`, of the whole image, whatever its shape.
    """
    kept: list[Record] = []

    def views() -> Iterator[View]:
        for index, view in dataset.reading(config).views([record.image for record in records]):
            kept.append(records[index])
            yield view

    progress = ProgressLine(f"evaluate {category}", len(records), unit="image")
    size = (config.image_size,) * 2
    found = []
    for one in predictor(views()):
        whole = resize_map(one.map, size), resize_map(one.map_without_fa, size)
        found.append(one._replace(map=whole[0], map_without_fa=whole[1]))
        progress.update(len(found))
    progress.close()
    if not found:
        raise UserError(f"{category}: none of {len(records)} images to test on can be read")
    return kept, Found._make(np.stack(column) for column in zip(*found, strict=True))


def _measure(
    names: tuple[str, ...],
    maps: np.ndarray,
    masks: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
) -> dict[str, float]:
    """Image metrics of all images, pixel metrics of those whose ground truth is `known`."""
    if known.all():
        return metrics.evaluate(maps, masks, scores, labels, names=names)
    of_images = [name for name in names if name.startswith("image_")]
    of_pixels = [name for name in names if name not in of_images]
    values = metrics.evaluate(maps, masks, scores, labels, names=of_images)
    # Without one mask there is no pixel metric, though good images are known pixel by pixel.
    values |= (
        metrics.evaluate(maps[known], masks[known], names=of_pixels)
        if labels[known].any()
        else dict.fromkeys(of_pixels, math.nan)
    )
    return {name: values[name] for name in names}


def _write_panels(
    config: ml_collections.ConfigDict,
    records: list[Record],
    masks: np.ndarray,
    found: Found,
    directory: Path,
) -> None:
    """Panels of images spread evenly over the split, so that every defect has its share."""
    count = min(config.evaluate.panels, len(records))
    if not count:
        return
    chosen = np.unique(np.linspace(0, len(records) - 1, count).round().astype(int))
    for has_truth in (True, False):
        indices = [i for i in chosen if records[i].has_truth == has_truth]
        if not indices:
            continue
        picked = [records[i] for i in indices]
        try:
            write_panels(
                directory,
                load_images(picked, config.image_size),
                masks[indices] if has_truth else None,
                found.map[indices],
                [f"{record.category}/{record.defect}/{record.image.stem}" for record in picked],
                found.score[indices].tolist(),
            )
        except UserError as error:  # the pictures need an optional library, the numbers do not
            note(f"no panels: {error}")
            return
