"""What is answered of an image: numbers, regions, pictures."""

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from stlm_jax.data.images import resize_map
from stlm_jax.data.memory_file import MemoryFile
from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.encode import encode
from stlm_jax.drawing.overlay import MapPictures, in_16_bits
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.inference.regions import regions_of
from stlm_jax.serving.uploads import decoded
from stlm_jax.weights.description import Calibration, Description

JSON, OVERLAY, MAP = "application/json", "image/png", "application/x-stlm-map"
KINDS = (JSON, OVERLAY, MAP)  # the first is what a client gets that asks for nothing
MOST_REGIONS = 1000
_COMPRESSION = 1  # of zlib's nine: the client waits


class Region(BaseModel):
    """A part of the image where the map is above the pixel threshold."""

    box: tuple[int, int, int, int] = Field(description="x, y, width, height, in pixels")
    area: int = Field(description="pixels above the threshold")
    peak: float = Field(description="the largest value of the map there")


class Result(BaseModel):
    """What a model says of an image; what its thresholds decide is null where it has none."""

    model: str
    score: float = Field(description="mean of the largest pixels of the map")
    normalised_score: float | None = Field(description="0 to 1, above 0.5 where defective")
    verdict: Literal["good", "defective"] | None
    threshold: float | None = Field(description="an image is defective where its score is above")
    pixel_threshold: float | None
    width: int
    height: int
    region_count: int | None
    ms: float = Field(description="from the request's arrival to its result, in the server")


class FullResult(Result):
    """A result with its regions."""

    regions: list[Region] | None = Field(description=f"largest first, {MOST_REGIONS} at most")


class BatchItem(BaseModel):
    """An image of a batch: its result, or why there is none."""

    file: str = Field(description="the name that was sent")
    result: FullResult | None = None
    error: str | None = None


class ModelInfo(BaseModel):
    """A model that is served."""

    model_config = ConfigDict(protected_namespaces=())
    name: str
    category: str = Field(description="what it was trained on; empty where that is not known")
    image_size: int = Field(description="side in pixels of what the network sees")
    threshold: float | None
    normaliser: float | None = Field(
        description="normalised score = 1 / (1 + exp((threshold − score) / normaliser))"
    )
    pixel_threshold: float | None
    calibration_source: str | None


class Models(BaseModel):
    """The models, the one that answers where none is named first."""

    models: list[ModelInfo]
    max_upload_bytes: int
    max_pixels: int


class Status(BaseModel):
    """That the server lives, or is ready."""

    status: str


class Error(BaseModel):
    """Why there is no result, in one line."""

    error: str


class Seen(NamedTuple):
    """An image that a model has looked at.

    Attributes:
        file: the image.
        shape: its height and width.
        maps: finite.
    """

    file: MemoryFile
    shape: tuple[int, int]
    maps: ImageMaps


def info(name: str, description: Description) -> ModelInfo:
    """What is told of a model."""
    known = description.calibration
    return ModelInfo(
        name=name,
        category=description.category,
        image_size=description.image_size,
        threshold=known.threshold if known else None,
        normaliser=known.normaliser if known else None,
        pixel_threshold=known.pixel_threshold if known else None,
        calibration_source=known.source if known else None,
    )


def result(name: str, description: Description, seen: Seen) -> FullResult:
    """The numbers; `ms` is 0 until it is known."""
    known, (height, width) = description.calibration, seen.shape
    score = np.asarray(seen.maps.score, np.float32)
    regions = None
    if known:
        found = regions_of(resize_map(seen.maps.map, seen.shape), known.pixel_threshold)
        regions = [Region(**one) for one in found]
    return FullResult(
        model=name,
        score=float(score),
        normalised_score=float(known.normalise(score)) if known else None,
        verdict=_verdict(known, score),
        threshold=known.threshold if known else None,
        pixel_threshold=known.pixel_threshold if known else None,
        width=width,
        height=height,
        region_count=None if regions is None else len(regions),
        regions=None if regions is None else regions[:MOST_REGIONS],
        ms=0.0,
    )


def picture(kind: str, description: Description, seen: Seen, side: int | None) -> bytes:
    """The PNG of a kind, `OVERLAY` or `MAP`, of the image's size or with `side` its longer one.

    `side` makes nothing larger.
    """
    shape = seen.shape
    if side is not None and side < max(shape):
        shape = tuple(max(1, round(length * side / max(shape))) for length in shape)  # type: ignore[assignment]
    values = resize_map(seen.maps.map, shape)
    if kind == MAP:
        return encode(in_16_bits(values), compress_level=_COMPRESSION)
    image = decoded(seen.file, description.depth)
    if image.size != shape[::-1]:
        image = image.resize(shape[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    known = description.calibration
    pictures = MapPictures(np.array(image), Scale.of(known.pixel_threshold if known else None))
    pictures.add(0, values)
    return encode(pictures.finished()["overlay"], compress_level=_COMPRESSION)


def _verdict(known: Calibration | None, score: np.ndarray) -> Literal["good", "defective"] | None:
    if known is None:
        return None
    return "defective" if known.is_anomalous(score) else "good"
