"""A category's images as panels, the most wrong first."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stlm_jax.calibration import Calibration
from stlm_jax.panel_drawing import Style, draw_map, draw_overlay
from stlm_jax.results import ImageResult

MISS, FALSE_ALARM, RIGHT = "miss", "false alarm", "right"
_QUALITY, _EFFORT = 80, 2  # of WebP: more effort takes twice the time for 5 % of the size


@dataclass(frozen=True)
class Tile:
    """One picture of a panel: a `data:` address, or where there is nothing to show, a text."""

    caption: str
    alt: str
    source: str = ""
    text: str = ""


@dataclass(frozen=True)
class Panel:
    """One image of the gallery.

    Attributes:
        name: "defect/stem".
        defect: `good` or the defect's type.
        verdict: `MISS`, `FALSE_ALARM`, `RIGHT`, or "" where there is no threshold.
        score: the image's.
        normalised: the same as 0..1, 0.5 at the threshold; None where there is none.
        width: of the pictures, in pixels.
        height: likewise.
        tiles: image, ground truth, anomaly map, overlay.
    """

    name: str
    defect: str
    verdict: str
    score: float
    normalised: float | None
    width: int
    height: int
    tiles: list[Tile]


def verdict(image: ImageResult, calibration: Calibration | None) -> str:
    """Whether the image is a miss, a false alarm or right at the threshold; "" without one."""
    if calibration is None:
        return ""
    if (image.score > calibration.threshold) == bool(image.label):
        return RIGHT
    return MISS if image.label else FALSE_ALARM


def most_wrong_first(
    images: Sequence[ImageResult], calibration: Calibration | None
) -> list[ImageResult]:
    """By how far the score lies on the wrong side of the threshold; those on the right side last.

    Without a threshold, by how low a defective image's score is and how high a good one's.
    """
    threshold = calibration.threshold if calibration else 0.0

    def wrong_by(image: ImageResult) -> float:
        above = float(image.score) - threshold
        return -above if image.label else above

    def key(image: ImageResult) -> tuple[bool, float, str]:
        return verdict(image, calibration) == RIGHT, -wrong_by(image), image.name

    return sorted(images, key=key)


def panel(image: ImageResult, calibration: Calibration | None, style: Style) -> Panel:
    """The panel of an image, in the colours of its model.

    Raises:
        UserError: matplotlib is missing.
    """
    height, width = image.picture.shape[:2]
    overlay = draw_overlay(image.picture, image.mask, image.map, style)
    tiles = [
        Tile("image", f"image {image.name}", _webp(image.picture)),
        _truth(image),
        Tile("map", f"anomaly map of {image.name}", _webp(draw_map(image.map, style))),
        Tile("overlay", f"map, outlined over {image.name}", _webp(overlay)),
    ]
    return Panel(
        name=image.name,
        defect=image.defect,
        verdict=verdict(image, calibration),
        score=float(image.score),
        normalised=float(calibration.normalise(image.score)) if calibration else None,
        width=width,
        height=height,
        tiles=tiles,
    )


def _truth(image: ImageResult) -> Tile:
    alt = f"ground truth of {image.name}"
    if image.mask is not None and image.mask.any():
        return Tile("truth", alt, _png(image.mask))
    text = "no defect"
    if image.label:
        text = "not known" if image.mask is None else "nothing marked"
    return Tile("truth", f"{alt}: {text}", text=text)


def _webp(pixels: np.ndarray) -> str:
    """(h, w, 3) uint8 as a `data:` address."""
    return _address("webp", Image.fromarray(pixels), quality=_QUALITY, method=_EFFORT)


def _png(mask: np.ndarray) -> str:
    """(h, w) bool as a `data:` address, one bit a pixel."""
    return _address("png", Image.fromarray(mask.astype(bool)), optimize=True)


def _address(kind: str, picture: Image.Image, **options) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
