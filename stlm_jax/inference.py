"""Finished models as functions of images: `Detector` finds anomalies, `Sam` gives features."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from stlm_jax.calibration import Calibration
from stlm_jax.compilation import jit
from stlm_jax.data.images import resize_images, resize_map
from stlm_jax.data.reading import Reading, View
from stlm_jax.description import Description
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
      normalised: (N,) float64 in 0..1, above 0.5 where anomalous; None likewise.
    """

    anomaly_map: np.ndarray
    score: np.ndarray
    is_anomalous: np.ndarray | None
    normalised: np.ndarray | None


class Detector:
    """A trained STLM, from a checkpoint of this package, a torch file or an exported `.onnx`.

    Attributes:
      description: category, image size, geometry and thresholds.
    """

    def __init__(
        self,
        infer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        description: Description,
    ):
        """`infer` maps uint8 (N, S, S, 3), S = `image_size`, to maps (N, S, S), scores (N,)."""
        self._infer, self.description = infer, description
        self._reading = Reading(description.image_size, description.geometry)

    @property
    def category(self) -> str:
        """What it was trained on; empty where that is not known."""
        return self.description.category

    @property
    def image_size(self) -> int:
        """Side in pixels of what the network sees."""
        return self.description.image_size

    @property
    def calibration(self) -> Calibration | None:
        """Thresholds and where they are from; None where none are stored."""
        return self.description.calibration

    @property
    def threshold(self) -> float | None:
        """Score above which an image is anomalous, or None."""
        return self.calibration.threshold if self.calibration else None

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
            fixed = onnx.description.image_size
            if image_size not in (None, fixed):
                raise UserError(f"{path}: exported for {fixed} px, not {image_size}")
            return cls(onnx, onnx.description)
        trained = load_trained(path, segmentation, image_size)
        size = trained.config.image_size
        predict = jit(make_predict_fn(trained.config, trained.model), static_argnums=2)
        variables = jax.device_put(trained.variables)

        def infer(images):
            result = predict(variables, images, (size, size))
            return result["map"], result["score"]

        return cls(infer, trained.description)

    def __call__(self, images: np.ndarray) -> Detection:
        """Looks at images.

        Args:
          images: uint8 (N, H, W, 3), RGB; made square as in training.

        Raises:
          UserError: `images` has another shape or type.
        """
        _check(images)
        maps, scores = self.look([self._reading.view_of(Image.fromarray(x)) for x in images])
        maps = [resize_map(anomaly_map, images.shape[1:3]) for anomaly_map in maps]
        known = self.calibration
        return Detection(
            np.stack(maps),
            scores,
            scores > known.threshold if known else None,
            known.normalise(scores) if known else None,
        )

    def look(self, views: Sequence[View]) -> tuple[list[np.ndarray], np.ndarray]:
        """Maps (h, w) of the images as they lie in the squares, without padding; scores (N,).

        Args:
          views: at least one, of side `image_size`, in the geometry of `description`.
        """
        squares, scores = _in_batches(self._infer, np.stack([view.pixels for view in views]))
        maps = []
        for index, view in enumerate(views):
            maps.append(view.box.of(squares[index]))
            if view.box.shape != squares.shape[1:]:
                scores[index] = mean_of_largest(maps[index], self.description.score_top_k)
        return maps, scores


class Sam:
    """A SAM or MobileSAM, up to the two features that STLM learns from."""

    def __init__(self, model, variables, image_size: int = 1024):
        """`variables` are those of `model`, a `stlm_jax.models.sam.Sam`."""
        self._apply = jit(model.apply)
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
