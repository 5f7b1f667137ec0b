"""Whether an export says what the Flax model says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from conversion.inference_function import OUTPUTS, make_inference_fn
from stlm_jax import dataset, metrics
from stlm_jax.data.images import load_masks, resize_map
from stlm_jax.data.records import Record
from stlm_jax.errors import UserError
from stlm_jax.inference import Detector
from stlm_jax.models.resize import interpolation_matrix
from stlm_jax.progress import ProgressLine
from stlm_jax.trained import Trained

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

AUROC = ("image_auroc", "pixel_auroc")
_COARSE = 8  # cells along an axis of the smooth images


def cpu_device() -> jax.Device:
    """Where exports are compared: accelerators round products to fewer bits than float32 has."""
    return jax.local_devices(backend="cpu")[0]


def flax_run(trained: Trained) -> Run:
    """The Flax function on CPU: uint8 (N, S, S, 3) to maps (N, S, S) and scores (N,)."""
    infer = jax.jit(make_inference_fn(trained))
    variables = jax.device_put(trained.variables, cpu_device())

    def run(images):
        anomaly_map, score = infer(variables, images)
        return np.asarray(anomaly_map), np.asarray(score)

    return run


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


def differences(expected: Run, actual: Run, images: np.ndarray) -> dict[str, float]:
    """The largest relative L2 difference of each output: of the first image alone, of all."""
    singly = [expected(image[None]) for image in images]
    reference = [np.concatenate(values) for values in zip(*singly, strict=True)]
    found = dict.fromkeys(OUTPUTS, 0.0)
    for count in (1, len(images)):
        for name, value, wanted in zip(OUTPUTS, actual(images[:count]), reference, strict=True):
            difference = relative_difference(value, wanted[:count])
            found[name] = float(np.maximum(found[name], difference))  # NaN stays NaN
    return found


def refuse_difference(path: str | Path, found: dict[str, float], tolerance: float) -> None:
    """Raises UserError, naming `path`, where one of `differences` is above `tolerance` or NaN."""
    for name in OUTPUTS:
        if not (np.isfinite(found[name]) and found[name] <= tolerance):
            raise UserError(
                f"{path}: not written, its {name} differs from the Flax model's by "
                f"{found[name]:.1e} relative L2, more than {tolerance:.0e}"
            )


def auroc(run: Run, trained: Trained, records: Sequence[Record], label: str) -> dict[str, float]:
    """Image and pixel AUROC, in 0..1, on labelled images, shown and measured as in evaluation.

    Pixels count where the ground truth is known. `label` names the progress line.
    """
    detector, size = Detector(run, trained.description), trained.config.image_size
    progress = ProgressLine(label, len(records), unit="image")
    read, found_maps, found_scores = [], [], []
    for index, view in dataset.reading(trained.config).views([r.image for r in records]):
        (anomaly_map,), score = detector.look([view])
        read.append(records[index])
        found_maps.append(resize_map(anomaly_map, (size, size)))
        found_scores.append(score)
        progress.update(index + 1)
    progress.close()
    masks, labels = load_masks(read, size), np.array([record.label for record in read])
    known = np.array([record.has_truth for record in read])
    maps, scores = np.stack(found_maps), np.concatenate(found_scores)
    of_images, of_pixels = AUROC
    return {
        **metrics.evaluate(maps, masks, scores, labels, names=(of_images,)),
        **metrics.evaluate(maps[known], masks[known], names=(of_pixels,)),
    }
