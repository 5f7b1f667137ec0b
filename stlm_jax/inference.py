"""Finished models as functions of images: `Detector` finds anomalies, `Sam` gives features."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from stlm_jax.data.geometry import SQUASH
from stlm_jax.data.images import resize_images, resize_map
from stlm_jax.data.reading import Reading
from stlm_jax.errors import UserError
from stlm_jax.inference_step import make_predict_fn, mean_of_largest
from stlm_jax.trained import check_image_size, load_trained
from stlm_jax.weights import load_sam

BATCH = 8  # images at most in one call of the compiled function


@dataclasses.dataclass(frozen=True)
class Detection:
    """What a detector says of N images.

    Attributes:
      anomaly_map: (N, H, W) float32, of the images' own size.
      score: (N,) float32.
      is_anomalous: (N,) bool, score > threshold; None where no threshold is stored.
    """

    anomaly_map: np.ndarray
    score: np.ndarray
    is_anomalous: np.ndarray | None


class Detector:
    """A trained STLM, from a checkpoint of this package, a torch file or an exported `.onnx`.

    Attributes:
      category: what it was trained on; empty where that is not known.
      image_size: side in pixels of what the network sees.
      threshold: score from which an image is anomalous, or None.
    """

    def __init__(
        self,
        infer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        image_size: int,
        category: str = "",
        threshold: float | None = None,
        geometry: str = SQUASH,
        top_k: int = 100,
    ):
        """`infer` maps uint8 (N, S, S, 3), S = `image_size`, to maps (N, S, S), scores (N,).

        `geometry` and `top_k` are `config.data.geometry` and `config.evaluate.score_top_k`.
        """
        self._infer = infer
        self._reading, self._top_k = Reading(image_size, geometry), top_k
        self.image_size, self.category, self.threshold = image_size, category, threshold

    @classmethod
    def load(
        cls,
        path: str | Path,
        segmentation: str | Path | None = None,
        image_size: int | None = None,
    ) -> "Detector":
        """Loads a detector.

        Args:
          path: an `.onnx` of `conversion.to_onnx`, or what `stlm_jax.trained.load_trained` takes.
          segmentation: the FA module's torch file, where it is a file of its own.
          image_size: side in pixels; default: that of training. An `.onnx` has a fixed one.

        Raises:
          UserError: the file is absent, damaged, or no STLM.
        """
        if Path(path).suffix == ".onnx":
            from conversion.onnx_session import OnnxModel  # needs the extra `stlm_jax[export]`

            onnx = OnnxModel(path)
            if image_size not in (None, onnx.image_size):
                raise UserError(f"{path}: exported for {onnx.image_size} px, not {image_size}")
            return cls(onnx, onnx.image_size, onnx.category, onnx.threshold)
        trained = load_trained(path, segmentation, image_size)
        size = trained.config.image_size
        predict = jax.jit(make_predict_fn(trained.config, trained.model), static_argnums=2)
        variables = jax.device_put(trained.variables)

        def infer(images):
            result = predict(variables, images, (size, size))
            return result["map"], result["score"]

        geometry, top_k = trained.config.data.geometry, trained.config.evaluate.score_top_k
        return cls(infer, size, trained.category, trained.threshold, geometry, top_k)

    def __call__(self, images: np.ndarray) -> Detection:
        """Looks at images.

        Args:
          images: uint8 (N, H, W, 3), RGB; made square as in training.

        Raises:
          UserError: `images` has another shape or type.
        """
        _check(images)
        views = [self._reading.view_of(Image.fromarray(image)) for image in images]
        maps, scores = _in_batches(self._infer, np.stack([view.pixels for view in views]))
        box = views[0].box  # of all, for they are of one size
        if box.shape != maps.shape[1:]:
            maps = np.stack([box.of(anomaly_map) for anomaly_map in maps])
            scores = np.array([mean_of_largest(values, self._top_k) for values in maps])
        maps = np.stack([resize_map(anomaly_map, images.shape[1:3]) for anomaly_map in maps])
        decision = None if self.threshold is None else scores > self.threshold
        return Detection(maps, scores, decision)


class Sam:
    """A SAM or MobileSAM, up to the two features that STLM learns from."""

    def __init__(self, model, variables, image_size: int = 1024):
        """`variables` are those of `model`, a `stlm_jax.models.sam.Sam`."""
        self._apply = jax.jit(model.apply)
        self._variables = jax.device_put(variables)
        self.image_size = image_size

    @classmethod
    def load(cls, path: str | Path, image_size: int = 1024) -> "Sam":
        """Loads a converted weights file or a published torch file; which SAM is told from it.

        Raises:
          UserError: the file is absent, damaged, or no SAM; or `image_size` is no multiple of 16.
        """
        check_image_size(image_size)
        return cls(*load_sam(path), image_size)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Feature 1 (the encoder's) and 2 (the decoder's), each (N, H/16, W/16, 256) float32.

        Args:
          images: uint8 (N, H, W, 3), RGB; resized to `image_size`, which H and W above mean.

        Raises:
          UserError: `images` has another shape or type.
        """
        _check(images)
        resized = resize_images(images, (self.image_size, self.image_size))
        first, second = _in_batches(lambda x: self._apply(self._variables, x), resized)
        return first, second


def _check(images: np.ndarray) -> None:
    shape, dtype = np.shape(images), getattr(images, "dtype", type(images).__name__)
    if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8 or 0 in shape:
        raise UserError(f"images must be uint8 (N, H, W, 3), not {dtype} {shape}")


def _in_batches(infer: Callable, images: np.ndarray) -> list[np.ndarray]:
    """Batches of a power of two, the last padded, so that few shapes are ever compiled."""
    parts = []
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        padding = (1 << (len(batch) - 1).bit_length()) - len(batch)
        padded = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts.append([np.asarray(value)[: len(batch)] for value in infer(padded)])
    return [np.concatenate(values) for values in zip(*parts, strict=True)]
