"""Evaluation of every category's last checkpoint on its test split."""

import math
from pathlib import Path

import ml_collections
import numpy as np

from stlm_jax import dataset, metrics, run_info, tables
from stlm_jax.data.images import load_images, load_masks
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError
from stlm_jax.panels import write_panels
from stlm_jax.predictor import Predictor
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
    size = config.image_size
    progress = ProgressLine(f"evaluate {category}", len(records), unit="image")
    batches = list(
        predictor(
            len(records),
            lambda first, last: load_images(records[first:last], size),
            progress.update,
        )
    )
    progress.close()
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    masks = load_masks(records, size)
    labels = np.array([record.label for record in records])
    known = np.array([record.has_truth for record in records])
    if not known.all():
        note(f"{category}: pixel metrics leave out {(~known).sum()} defective images without masks")
    values: dict[str, float] = {}
    for suffix in ("", WITHOUT_FA):
        part = _measure(
            config.evaluate.metrics, found[f"map{suffix}"], masks, found[f"score{suffix}"],
            labels, known,
        )  # fmt: skip
        values |= {f"{name}{suffix}": value for name, value in part.items()}
    _write_panels(config, records, masks, found, workdir / RESULTS / "panels")
    return values


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
    found: dict[str, np.ndarray],
    directory: Path,
) -> None:
    """Panels of images spread evenly over the split, so that every defect has its share."""
    count = min(config.evaluate.panels, len(records))
    if not count:
        return
    chosen = np.unique(np.linspace(0, len(records) - 1, count).round().astype(int))
    for has_truth in (True, False):
        indices = [i for i in chosen if records[i].has_truth == has_truth]
        picked = [records[i] for i in indices]
        try:
            write_panels(
                directory,
                load_images(picked, config.image_size),
                masks[indices] if has_truth else None,
                found["map"][indices],
                [f"{record.category}/{record.defect}/{record.image.stem}" for record in picked],
                found["score"][indices].tolist(),
            )
        except UserError as error:  # the pictures need an optional library, the numbers do not
            note(f"no panels: {error}")
            return
