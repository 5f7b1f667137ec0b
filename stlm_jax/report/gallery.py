"""A category's images as panels, the most wrong first."""

import base64
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stlm_jax.drawing.colours import Scale, draw_map, draw_overlay
from stlm_jax.drawing.encode import encode
from stlm_jax.evaluation.results import ImageResult, verdict
from stlm_jax.weights.description import Calibration

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
    """One image of the gallery, its `verdict` as in `results`."""

    name: str
    defect: str
    verdict: str
    score: float
    normalised: float | None  # the score as 0..1, 0.5 at the threshold; None where there is none
    width: int  # of the pictures, in pixels
    height: int
    tiles: list[Tile]  # image, ground truth, anomaly map, overlay


def panel(image: ImageResult, calibration: Calibration | None, scale: Scale) -> Panel:
    """The panel of an image, in the colours of its model."""
    height, width = image.picture.shape[:2]
    overlay = draw_overlay(image.picture, image.mask, image.map, scale)
    tiles = [
        Tile("image", f"image {image.name}", _webp(image.picture)),
        _truth(image),
        Tile("map", f"anomaly map of {image.name}", _webp(draw_map(image.map, scale))),
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
        one_bit = Image.fromarray(image.mask.astype(bool))
        return Tile("truth", alt, _address("png", one_bit, optimize=True))
    text = "no defect"
    if image.label:
        text = "not known" if image.mask is None else "nothing marked"
    return Tile("truth", f"{alt}: {text}", text=text)


def _webp(pixels: np.ndarray) -> str:
    """(h, w, 3) uint8 as a `data:` address."""
    return _address("webp", Image.fromarray(pixels), quality=_QUALITY, method=_EFFORT)


def _address(kind: str, picture: Image.Image, **options) -> str:
    content = base64.b64encode(encode(picture, kind.upper(), **options)).decode()
    return f"data:image/{kind};base64,{content}"
