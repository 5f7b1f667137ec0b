"""What evaluation measured as TensorBoard events, beside those of the training."""

import math
from pathlib import Path

import numpy as np

from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.panel import draw_panel
from stlm_jax.evaluation.results import CategoryResult, RunResult, most_wrong_first
from stlm_jax.runtime.metric_writer import event_writer
from stlm_jax.runtime.paths import Staged

_SUFFIX = ".evaluation"


def write_events(workdir: Path, run: RunResult) -> None:
    """Writes each category's metrics, rates and panels into its folder, at the step evaluated.

    The panels are the `config.evaluate.panels` most wrong images. Events of an earlier evaluation
    are replaced. Without tensorboardX nothing is written but a note of that.
    """
    for category in run.categories:
        folder = workdir / category.category
        if not folder.is_dir():  # evaluated, but not trained here
            continue
        for path in folder.glob(f"events.*{_SUFFIX}"):
            path.unlink(missing_ok=True)
        with Staged(folder) as staged:
            events = event_writer(staged.path, filename_suffix=_SUFFIX)
            if events is None:
                return
            _write(events, category, run.config.evaluate.panels)
            events.close()


def _write(events, category: CategoryResult, panels: int) -> None:
    step, calibration = category.step, category.calibration
    for name, value in {**category.metrics, **category.rates}.items():
        if not math.isnan(value):
            events.add_scalar(f"evaluation/{name}", value, step)
    scale = Scale.of(calibration.pixel_threshold if calibration else None)
    for image in most_wrong_first(category.images, calibration)[:panels]:
        panel = draw_panel(image.picture, image.mask, image.map, image.name, image.score, scale)
        events.add_image(f"evaluation/{image.name}", np.asarray(panel), step, dataformats="HWC")
