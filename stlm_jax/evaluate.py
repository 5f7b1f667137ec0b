"""Evaluation of every category's last checkpoint on its test split."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import ml_collections
import numpy as np

from stlm_jax import calibration, dataset, details, run_info, tables
from stlm_jax.data.images import load_images, load_masks
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError
from stlm_jax.files import write_atomically
from stlm_jax.gather import gather
from stlm_jax.measured import Measured
from stlm_jax.measuring import measure
from stlm_jax.panel_drawing import Style
from stlm_jax.panels import write_panels
from stlm_jax.predictor import Predictor
from stlm_jax.progress import note
from stlm_jax.results import WITHOUT_FA, CategoryResult, RunResult
from stlm_jax.settings import Settings

T = TypeVar("T")
RESULTS = "results"
REPORT = "report.html"


def evaluate(settings: Settings) -> RunResult | None:
    """Evaluate all of `config.data.categories`, write `results/` and print the table.

    The last checkpoint is evaluated, never one chosen on the test split. Each metric appears
    twice: of the FA module's map, and as `<name>_without_fa` of the product of cosine distances.

    A category without test images is left out. Where defective images have no ground truth,
    image metrics still count them and pixel metrics do not.

    Of several processes each measures its share of the images; all return the same, the first one
    writes.

    Returns:
        What was measured; None where no category has test images.

    Raises:
        UserError: a category was not trained, or its images cannot be used.
    """
    config, workdir = settings.config, settings.workdir
    run_info.check_same_run(workdir, config)
    dataset.prepare(config)
    predictor = Predictor(config)
    results = []
    for category in config.data.categories:
        step = predictor.load(workdir / category)
        records = dataset.split_of(config, category, "test")
        if records:
            results.append(_evaluate_category(config, predictor, category, records, workdir, step))
        else:
            _note(f"{category}: there is no image to test on, nothing to evaluate")
    if not results:
        return None
    mean = tables.with_mean({one.category: one.metrics for one in results})[tables.MEAN]
    run = RunResult(results, mean, predictor.cost(config.evaluate.latency_runs), config)
    if jax.process_index() == 0:
        _write(run, workdir / RESULTS)
    return run


def _evaluate_category(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    category: str,
    records: list[Record],
    workdir: Path,
    step: int,
) -> CategoryResult:
    thresholds = _agreed(
        lambda: calibration.load_or_make(workdir / category, config, predictor, category)
    )[0]
    panels = _spread(len(records), config.evaluate.panels)
    parts = _agreed(lambda: measure(config, predictor, category, records, thresholds, panels))
    measured = parts[0]
    for part in parts[1:]:
        measured.merge(part)
    if not measured.images:
        raise UserError(f"{category}: none of {len(records)} images to test on can be read")
    unknown = sum(not records[index].has_truth for index in measured.images)
    if unknown:
        _note(f"{category}: pixel metrics leave out {unknown} defective images without masks")
    result, without = measured.with_fa.result(), measured.without_fa.result()
    for reason in dict.fromkeys(result.reasons.values()):
        names = ", ".join(name for name, text in result.reasons.items() if text == reason)
        _note(f"{category}: {names} undefined: {reason}")
    if jax.process_index() == 0:
        style = Style.of(thresholds.pixel_threshold if thresholds else None)
        _write_panels(config, records, measured, style, workdir / RESULTS / "panels")
    bare = {f"{name}{WITHOUT_FA}": value for name, value in without.values.items()}
    return CategoryResult(
        category=category,
        metrics={**result.values, **bare},
        result=result,
        result_without_fa=without,
        calibration=thresholds,
        rates=measured.rates.result() if measured.rates else {},
        images=measured.in_order(),
        step=step,
    )


def _agreed(work: Callable[[], T]) -> list[T]:
    """What `work` gives in every process; what is wrong in one is raised in all."""
    results: list[T] = []
    refusals: list[UserError] = []
    try:
        results.append(work())
    except UserError as error:
        refusals.append(error)
    parts = gather((results, refusals))
    for _, others in parts:
        for refusal in others:
            raise refusal
    return [result for own, _ in parts for result in own]


def _spread(count: int, panels: int) -> list[int]:
    """Places spread evenly over a split, so that every defect has its share of panels."""
    wanted = min(panels, count)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def _write(run: RunResult, directory: Path) -> None:
    results = {one.category: one.metrics for one in run.categories}
    closing = f"\nCost: {run.cost.sentence()}.\n\n{tables.PAPER}\n"
    tables.write_results(directory, results, closing)
    write_atomically(directory / details.NAME, details.text(run))
    print(tables.format_table(results) + closing, end="")
    try:
        from stlm_jax.report import write_events, write_report

        write_report(directory / REPORT, run)
        write_events(directory.parent, run)
    except UserError as error:  # the report needs optional libraries, the numbers do not
        note(f"no report: {error}")
    note(f"written to {directory}")


def _write_panels(
    config: ml_collections.ConfigDict,
    records: list[Record],
    measured: Measured,
    style: Style,
    directory: Path,
) -> None:
    for has_truth in (True, False):
        indices = [i for i in sorted(measured.maps) if records[i].has_truth == has_truth]
        if not indices:
            continue
        picked = [records[i] for i in indices]
        try:
            write_panels(
                directory,
                load_images(picked, config.image_size),
                load_masks(picked, config.image_size) if has_truth else None,
                np.stack([measured.maps[i] for i in indices]),
                [f"{record.category}/{record.defect}/{record.image.stem}" for record in picked],
                [measured.images[i].score for i in indices],
                style,
            )
        except UserError as error:  # the pictures need an optional library, the numbers do not
            note(f"no panels: {error}")
            return


def _note(message: str) -> None:
    if jax.process_index() == 0:
        note(message)
