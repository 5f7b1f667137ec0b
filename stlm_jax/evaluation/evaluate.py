"""Evaluation of every category's last checkpoint on its test split."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from stlm_jax.data import dataset, depth
from stlm_jax.data.records import Record
from stlm_jax.evaluation.calibrate import load_or_calibrate
from stlm_jax.evaluation.measure import measure
from stlm_jax.evaluation.results import CategoryResult, PanelImage, RunResult
from stlm_jax.inference.predictor import Predictor
from stlm_jax.runtime.agreement import agreed
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import DATA_CHECK, DIVERGED, check_same_run

DrawPanels = Callable[[Sequence[PanelImage], Calibration | None], None]


def check_data(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Says what is wrong with the data, or raises it, before a run is evaluated."""
    check_same_run(workdir, config)
    dataset.prepare(config)
    dataset.check(config, training=False, say=_note, known=workdir / DATA_CHECK)


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: Path,
    draw_panels: DrawPanels = lambda images, calibration: None,
) -> RunResult | None:
    """Evaluates all of `config.data.categories`; nothing but thresholds is written.

    The last checkpoint is evaluated, never one chosen on the test split. Each metric appears
    twice: of the FA module's map, and as `<name>_without_fa` of the product of cosine distances.

    A category without test images is left out, and one whose training diverged. Where defective
    images have no ground truth, image metrics still count them and pixel metrics do not.

    Of several processes each measures its share of the images; all return the same, None where no
    category has test images. `draw_panels` is called in the first process for each category,
    while maps are in memory, with `config.evaluate.panels` images and the thresholds.
    """
    check_same_run(workdir, config)
    dataset.prepare(config)
    predictor = Predictor(config)
    results = []
    for category in config.data.categories:
        folder = workdir / category
        if (folder / DIVERGED).is_file():
            _note(f"{category}: its training diverged and was stopped, it is not evaluated")
            continue
        step = predictor.load(folder)
        records = dataset.split_of(config, category, "test")
        if records:
            result = _evaluate_category(config, predictor, folder, records, step, draw_panels)
            results.append(result)
        else:
            _note(f"{category}: there is no image to test on, nothing to evaluate")
    if not results:
        return None
    return RunResult(results, predictor.cost(config.evaluate.latency_runs), config)


def _evaluate_category(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    folder: Path,
    records: list[Record],
    step: int,
    draw_panels: DrawPanels,
) -> CategoryResult:
    category, label = folder.name, f"evaluate {folder.name}"
    config = depth.resolved(config, folder)
    thresholds = agreed(lambda: load_or_calibrate(folder, config, predictor, category, step))[0]
    # Spread evenly over the split, so that every defect has its share of panels.
    wanted = min(config.evaluate.panels, len(records))
    panels = np.unique(np.linspace(0, len(records) - 1, wanted).round().astype(int)).tolist()
    parts = agreed(lambda: measure(config, predictor, records, label, thresholds, panels))
    measurements = parts[0]
    for part in parts[1:]:
        measurements.merge(part)
    if not measurements.images:
        raise UserError(f"{category}: none of {len(records)} images to test on can be read")
    unknown = sum(not records[index].has_truth for index in measurements.images)
    if unknown:
        _note(f"{category}: pixel metrics leave out {unknown} defective images without masks")
    result = measurements.with_fa.result()
    for reason in dict.fromkeys(result.reasons.values()):
        names = ", ".join(name for name, text in result.reasons.items() if text == reason)
        _note(f"{category}: {names} undefined: {reason}")
    if jax.process_index() == 0:
        panel_images = [
            PanelImage(records[place], measurements.maps[place], measurements.images[place].score)
            for place in sorted(measurements.maps)
        ]
        draw_panels(panel_images, thresholds)
    return CategoryResult(
        category=category,
        result=result,
        result_without_fa=measurements.without_fa.result(),
        calibration=thresholds,
        rates=measurements.rates.result() if measurements.rates else {},
        images=measurements.in_order(),
        step=step,
    )


def _note(message: str) -> None:
    if jax.process_index() == 0:
        note(message)
