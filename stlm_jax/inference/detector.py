"""Finished models as functions of images: `Detector` finds anomalies, `Sam` gives features.

JAX is imported for those models only that it runs: an `.onnx` is loaded a second sooner without.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stlm_jax.data.depth import to_8_bits
from stlm_jax.data.images import resize_images, resize_map
from stlm_jax.data.reader import ImageReader, View
from stlm_jax.inference import openvino_model, stablehlo_model
from stlm_jax.inference.predict_views import (
    ImageMaps,
    PredictFn,
    pad_batch,
    predict_views,
    require_finite_maps,
)
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration, Description

BATCH = 8  # images at most in one call of the compiled function


@dataclasses.dataclass(frozen=True)
class Detection:
    """What a detector says of N images.

    Attributes:
        anomaly_map: (N, H, W) float32, of the images' own size.
        score: (N,) float32.
        is_anomalous: (N,) bool, `Calibration.is_anomalous`; None where no threshold is stored.
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

    def __init__(self, predict: PredictFn, description: Description):
        """`predict` takes squares of side `description.image_size`."""
        self._predict, self.description = predict, description
        self._reader = ImageReader(
            description.image_size, description.geometry, depth=description.depth
        )

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
            path: an `.onnx` of `conversion.to_onnx`, an `.xml` of `conversion.to_openvino`, a
                `.stablehlo` of `conversion.to_stablehlo`, or what `load_trained` takes.
            segmentation: the FA module's torch file, where it is a file of its own.
            image_size: side in pixels; default: that of training, and a UserError where the file
                does not say it. An export has a fixed one.
        """
        if Path(path).suffix == ".onnx":
            from stlm_jax.inference.onnx_model import OnnxModel  # needs the extra `export`

            onnx = OnnxModel(path)
            _require_size(path, onnx.description, image_size)
            return cls(onnx, onnx.description)
        if Path(path).suffix == openvino_model.SUFFIX:
            openvino = openvino_model.OpenvinoModel(path)
            _require_size(path, openvino.description, image_size)
            return cls(openvino, openvino.description)
        if Path(path).suffix == stablehlo_model.SUFFIX:
            exported = stablehlo_model.StablehloModel(path)
            _require_size(path, exported.description, image_size)
            return cls(exported, exported.description)
        import jax

        from stlm_jax.inference import traced
        from stlm_jax.inference.trained_model import load_trained

        trained = load_trained(path, segmentation, image_size)
        predict = traced.prediction(trained.config, trained.model).predict
        variables = jax.device_put(trained.variables)
        return cls(functools.partial(predict, variables), trained.description)

    def __call__(self, images: np.ndarray) -> Detection:
        """Looks at images, (N, H, W, 3), RGB; they are made square as in training.

        They are uint8, or uint16, of which `description.depth` says what is black and white.
        """
        if getattr(images, "dtype", None) == np.uint16 and images.size:
            images = np.stack([to_8_bits(x, self.description.depth, 65535) for x in images])
        _check(images)
        results = list(self.views([self._reader.view_of(Image.fromarray(x)) for x in images]))
        for number, result in enumerate(results, 1):
            require_finite_maps(result._asdict(), f"image {number} of {len(images)}")
        scores = np.array([result.score for result in results])
        known = self.calibration
        return Detection(
            np.stack([resize_map(result.map, images.shape[1:3]) for result in results]),
            scores,
            known.is_anomalous(scores) if known else None,
            known.normalise(scores) if known else None,
        )

    def views(self, views: Iterable[View], batch: int | None = None) -> Iterator[ImageMaps]:
        """Maps and scores of images, in order.

        Args:
            views: in squares of side `image_size`.
            batch: images in every call, of which the last is filled up; None: at most `BATCH`, and
                only powers of two.
        """
        following = iter(views)
        while some := list(itertools.islice(following, batch or BATCH)):
            count = batch or _power_of_two(len(some))
            yield from predict_views(self._predict, some, count, self.description.score_top_k)


class Sam:
    """A SAM or MobileSAM, up to the two features that STLM learns from."""

    def __init__(self, model, variables, image_size: int = 1024):
        """`variables` are those of `model`, a `stlm_jax.models.sam.Sam`."""
        import jax

        from stlm_jax.runtime.compilation import jit

        self._apply = jit(model.apply)
        self._variables = jax.device_put(variables)
        self.image_size = image_size

    @classmethod
    def load(cls, path: str | Path, image_size: int = 1024) -> "Sam":
        """Loads a converted weights file or a published torch file; which SAM is told from it."""
        from stlm_jax.inference.trained_model import check_image_size
        from stlm_jax.weights.load import load_sam

        check_image_size(image_size)
        return cls(*load_sam(path), image_size)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Feature 1 (the encoder's) and 2 (the decoder's), each (N, H/16, W/16, 256) float32.

        Args:
            images: uint8 (N, H, W, 3), RGB; resized to `image_size`, which H and W above mean.
        """
        _check(images)
        resized = resize_images(images, (self.image_size, self.image_size))
        parts = []
        for first in range(0, len(resized), BATCH):
            batch = resized[first : first + BATCH]
            features = self._apply(self._variables, pad_batch(batch, _power_of_two(len(batch))))
            parts.append([np.asarray(level)[: len(batch)] for level in features])
        first_level, second_level = zip(*parts, strict=True)
        return np.concatenate(first_level), np.concatenate(second_level)


def _require_size(path: str | Path, description: Description, size: int | None) -> None:
    if size not in (None, description.image_size):
        raise UserError(f"{path}: exported for {description.image_size} px, not {size}")


def _power_of_two(count: int) -> int:
    """The next one: so few shapes are ever compiled."""
    return 1 << (count - 1).bit_length()


def _check(images: np.ndarray) -> None:
    shape, dtype = np.shape(images), getattr(images, "dtype", type(images).__name__)
    if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8 or 0 in shape:
        raise UserError(f"images must be uint8 (N, H, W, 3), not {dtype} {shape}")
