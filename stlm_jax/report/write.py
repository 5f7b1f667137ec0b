"""Everything that an evaluation leaves in `results/`."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections

from stlm_jax.data import depth
from stlm_jax.data.images import load_images, load_masks
from stlm_jax.drawing.colours import Scale
from stlm_jax.evaluation.evaluate import DrawPanels
from stlm_jax.evaluation.results import PanelImage, RunResult
from stlm_jax.report import details_json, replicates, tables
from stlm_jax.report.events import write_events
from stlm_jax.report.page import write_report
from stlm_jax.report.panels import write_panels
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import DETAILS, PANELS, REPLICATES, REPORT, RESULTS


def write_results(run: RunResult, workdir: Path) -> None:
    """Writes tables, details, report and events of a run, and prints the table."""
    directory = workdir / RESULTS
    results = {category.category: category.metrics for category in run.categories}
    paper = tables.paper_line(run.config.data.source)
    closing = f"\nCost: {run.cost.sentence()}.\n" + (f"\n{paper}\n" if paper else "")
    tables.write_tables(directory, results, closing)
    replicates.write_replicates(directory / REPLICATES, run.categories)
    try:
        write_report(directory / REPORT, run)
        write_events(workdir, run)
    except UserError as error:  # the report needs optional libraries, the numbers do not
        note(f"no report: {error}")
    write_json(directory / DETAILS, details_json.content(run))  # last: it says that all is there
    note(f"written to {directory}")
    print(tables.format_table(results) + closing, end="")  # last: whoever reads it may have gone


def panel_writer(config: ml_collections.ConfigDict, results: Path) -> DrawPanels:
    """What writes a category's panels into a folder of results."""

    def write(images: Sequence[PanelImage], calibration: Calibration | None) -> None:
        records = [image.record for image in images]
        if not records:
            return
        known = depth.resolved(config, results.parent / records[0].category)
        try:
            masks = load_masks(records, config.image_size, config.data.mask)
            write_panels(
                results / PANELS,
                load_images(records, config.image_size, known.data.depth),
                [masks[i] if record.has_truth else None for i, record in enumerate(records)],
                [image.map for image in images],
                [
                    printable(f"{record.category}/{record.defect}/{record.image.stem}")
                    for record in records
                ],
                [image.score for image in images],
                Scale.of(calibration.pixel_threshold if calibration else None),
            )
        except UserError as error:  # the pictures need an optional library, the numbers do not
            note(f"no panels: {error}")

    return write
