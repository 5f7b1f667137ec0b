"""Whether an export says what the Flax model says."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from conversion.exports.export_fn import make_export_fn
from stlm_jax.data.records import Record
from stlm_jax.evaluation.measure import measure
from stlm_jax.inference.detector import Detector
from stlm_jax.inference.onnx_model import OUTPUTS
from stlm_jax.inference.predict_views import PredictFn
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.models.resize import interpolation_matrix
from stlm_jax.runtime.errors import UserError

AUROC = ("image_auroc", "pixel_auroc")
_NAMES = dict(zip(OUTPUTS, ("map", "score"), strict=True))
_COARSE = 8  # cells along an axis of the smooth images


def cpu_device() -> jax.Device:
    """Where exports are compared: accelerators round products to fewer bits than float32 has."""
    return jax.local_devices(backend="cpu")[0]


def flax_run(trained: TrainedModel) -> PredictFn:
    """The function that exports hold, on CPU."""
    infer = jax.jit(make_export_fn(trained))
    variables = jax.device_put(trained.variables, cpu_device())
    return lambda images: named_results(infer(variables, images))


def named_results(results: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """Maps and scores as a `PredictFn` gives them."""
    return dict(zip(_NAMES.values(), results, strict=True))


def drawn_images(size: int) -> np.ndarray:
    """Three images, uint8 (3, size, size, 3): smooth, smooth with a square of noise, noise."""
    rng = np.random.default_rng(0)
    enlarge = interpolation_matrix(_COARSE, size)
    coarse = rng.uniform(0, 255, (2, _COARSE, _COARSE, 3))
    smooth = np.einsum("hi,wj,nijc->nhwc", enlarge, enlarge, coarse).astype(np.uint8)
    noise = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    return np.concatenate([smooth[:1], with_defects(smooth[1:]), noise])


def with_defects(images: np.ndarray) -> np.ndarray:
    """Copies of uint8 (N, S, S, 3) with a square of noise, so that maps of them are not empty."""
    size = images.shape[1]
    square = slice(size // 4, size // 2)
    changed = images.copy()
    region = changed[:, square, square]
    region[:] = np.random.default_rng(0).integers(0, 256, region.shape, dtype=np.uint8)
    return changed


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """‖actual − expected‖ / ‖expected‖."""
    expected = expected.astype(np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def differences(expected: PredictFn, actual: PredictFn, images: np.ndarray) -> dict[str, float]:
    """The largest relative L2 difference of each output: of the first image alone, of all."""
    singly = [expected(image[None]) for image in images]
    result = dict.fromkeys(OUTPUTS, 0.0)
    for count in (1, len(images)):
        values = actual(images[:count])
        for output, name in _NAMES.items():
            wanted = np.concatenate([np.asarray(single[name]) for single in singly[:count]])
            difference = relative_difference(np.asarray(values[name]), wanted)
            result[output] = float(np.maximum(result[output], difference))  # NaN stays NaN
    return result


def refuse_difference(path: str | Path, figures: dict[str, float], tolerance: float) -> None:
    """Raises UserError, naming `path`, where one of `differences` is above `tolerance` or NaN."""
    for name in OUTPUTS:
        if not (np.isfinite(figures[name]) and figures[name] <= tolerance):
            raise UserError(
                f"{path}: not written, its {name} differs from the Flax model's by "
                f"{figures[name]:.1e} relative L2, more than {tolerance:.0e}"
            )


def auroc(
    run: PredictFn, trained: TrainedModel, records: Sequence[Record], label: str
) -> dict[str, float]:
    """Image and pixel AUROC, in 0..1, on labelled images, shown and measured as in evaluation.

    `label` names the progress line.
    """
    config = trained.config.copy_and_resolve_references()
    config.evaluate.metrics = AUROC
    detector = Detector(run, trained.description)
    return measure(config, detector.views, records, label).with_fa.result().values
