"""What a trained model says of itself beside its weights, in a run, a file or an export."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from stlm_jax import __version__
from stlm_jax.config.keys import LARGEST
from stlm_jax.config.rules import FILE, checked_depth
from stlm_jax.data.geometry import GEOMETRIES, SQUASH
from stlm_jax.data.held_out import HELD_OUT
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.digest import weights_digest
from stlm_jax.weights.file import FORMAT, FORMAT_VERSION

VALIDATION, TRAINING, F1MAX = "validation", "training", "f1max"
SOURCES = (VALIDATION, HELD_OUT, TRAINING, F1MAX)

_CALIBRATION = {  # the name in a file: the name in `Calibration`, what it is read by
    "threshold": ("threshold", float),
    "normaliser": ("normaliser", float),
    "pixel_threshold": ("pixel_threshold", float),
    "calibration_source": ("source", str),
    "calibration_images": ("images", int),
}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What tells anomalous from good, in the units of a model's scores and maps.

    Attributes:
        threshold: an image is anomalous where its score is above.
        normaliser: positive; the unit in which scores are counted from the threshold.
        pixel_threshold: a pixel is anomalous where the map is above.
        source: what it was estimated from: `validation`, `held_out`, `training` (optimistic, for
            the model knows these images), or `f1max`: good images and defective validation images.
        images: how many they were.
    """

    threshold: float
    normaliser: float
    pixel_threshold: float
    source: str
    images: int

    def __post_init__(self):
        values = (self.threshold, self.normaliser, self.pixel_threshold)
        if not all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in values):
            raise ValueError(f"not numbers: {values}")
        if not (all(map(math.isfinite, values)) and self.normaliser > 0):
            raise ValueError(f"not finite, or the normaliser is not positive: {values}")
        if not isinstance(self.images, numbers.Integral) or self.images < 0:
            raise ValueError(f"{self.images!r} is no number of images")
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is none of {', '.join(SOURCES)}")

    def is_anomalous(self, score: ArrayLike) -> np.ndarray:
        """Whether scores of any shape are above the threshold, bool; the one place that decides.

        It is compared in float64, which holds the float32 scores of models and the threshold as it
        is stored exactly. In float32 the threshold would be rounded, to a score that it is below.
        """
        return np.asarray(score, np.float64) > self.threshold

    def normalise(self, score: ArrayLike) -> np.ndarray:
        """Scores of any shape to float64 in 0..1: 0.5 at the threshold, more above it."""
        return expit((np.asarray(score, np.float64) - self.threshold) / self.normaliser)


@dataclasses.dataclass(frozen=True)
class Description:
    """How to show images to a model, and how to judge what it says of them.

    The defaults are the published setting.

    Attributes:
        category: what it was trained on; empty where that is not known.
        image_size: side in pixels of the square that it sees.
        geometry: how an image becomes the square, of `data.geometry.GEOMETRIES`.
        score_top_k: the score is the mean of this many largest pixels of the map.
        calibration: thresholds; None where they were not estimated.
        depth: what black and white are in images of more than eight bits, see `data.depth`.
    """

    category: str = ""
    image_size: int = 1024
    geometry: str = SQUASH
    score_top_k: int = 100
    calibration: Calibration | None = None
    depth: str = FILE

    def values(self) -> dict[str, str | int | float | None]:
        """What `read` takes, flat, for JSON or metadata; None of what is not known."""
        values = {
            name: getattr(self, name)
            for name in ("category", "image_size", "geometry", "score_top_k", "depth")
        }
        for name, (attribute, _) in _CALIBRATION.items():
            values[name] = self.calibration and getattr(self.calibration, attribute)
        return values

    @classmethod
    def read(cls, path: str | Path, values: Mapping[str, Any]) -> Self:
        """The description in `values`, numbers or their text; what is missing has its default."""
        try:
            geometry = values.get("geometry", cls.geometry)
            if geometry not in GEOMETRIES:
                raise ValueError(f"geometry {geometry!r} is none of {', '.join(GEOMETRIES)}")
            category = values.get("category", cls.category)
            if not isinstance(category, str):
                raise ValueError(f"category {category!r} is no text")
            size = int(values.get("image_size", cls.image_size))
            if size % 16 or not 16 <= size <= LARGEST:
                raise ValueError(f"image size {size} is no multiple of 16 up to {LARGEST}")
            top_k = int(values.get("score_top_k", cls.score_top_k))
            if top_k < 1:
                raise ValueError(f"score_top_k {top_k} is not positive")
            return cls(
                category,
                size,
                geometry,
                top_k,
                _calibration(values),
                checked_depth(values.get("depth", cls.depth)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: what it says of the model is damaged ({error})") from error


def text_values(description: Mapping[str, Any]) -> dict[str, str]:
    """Values as metadata hold them: text, empty for None."""
    return {name: "" if value is None else str(value) for name, value in description.items()}


def _calibration(values: Mapping[str, Any]) -> Calibration | None:
    if values.get("threshold") in (None, ""):
        return None
    return Calibration(
        **{attribute: kind(values[name]) for name, (attribute, kind) in _CALIBRATION.items()}
    )


MAKER = {"format": FORMAT, "format_version": FORMAT_VERSION, "version": __version__}


def export_metadata(description: Description, variables: Any, precision: str) -> dict[str, Any]:
    """What an export says of itself, by name; None of what is not known."""
    return {
        **MAKER,
        **description.values(),
        "precision": precision,
        "weights_sha256": weights_digest(variables),
    }
