"""One result as a picture: image, ground truth, anomaly map and overlay in a row.

The colour scale is the same in every panel, so a faint map looks faint; needs `stlm_jax[report]`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stlm_jax.drawing.colours import (
    ABOVE_THRESHOLD,
    GROUND_TRUTH,
    Scale,
    colours,
    draw_map,
    draw_overlay,
)
from stlm_jax.runtime.errors import UserError

MINIMAL_TILE = 224  # pixels; no caption fits less
_INK = (28, 28, 32)
_FAINT_INK = (110, 110, 118)
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a panel lie, in pixels."""

    tile_width: int
    tile_height: int
    margin: int = 14
    gap: int = 8
    title_height: int = 34
    caption_height: int = 22
    bar_width: int = 14
    tick_width: int = 40

    @property
    def top(self) -> int:
        """First row of the tiles."""
        return self.title_height + self.caption_height

    def left(self, tile: int) -> int:
        """First column of a tile, counted from 0; one past the last gives the colour bar's."""
        return self.margin + tile * (self.tile_width + self.gap)

    def size(self, tiles: int) -> tuple[int, int]:
        """Width and height of a panel."""
        width = self.left(tiles) + self.bar_width + self.tick_width
        return width, self.top + self.tile_height + self.margin


def draw_panel(
    image: np.ndarray,
    mask: np.ndarray | None,
    map_: np.ndarray,
    name: str,
    score: float | None = None,
    scale: Scale | None = None,
    tile: int = 256,
) -> Image.Image:
    """Image, ground truth, anomaly map and overlay in a row, with a title and a colour bar.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (h, w) {0, 1}, any size; None leaves ground truth out. A defect smaller than a
            pixel of the tile still shows.
        map_: (h, w) real and finite, any size.
        name: the title, parts separated by `/`.
        score: printed beside the title.
        scale: the map's colours and the threshold.
        tile: width in pixels of each of the pictures, at least `MINIMAL_TILE`.
    """
    scale = scale or Scale()
    if tile < MINIMAL_TILE:
        raise UserError(f"panel tiles of {tile} pixels; give at least {MINIMAL_TILE}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image of {name} is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    if map_.ndim != 2 or not np.isfinite(map_).all():
        raise ValueError(f"map of {name} is not a finite (h, w) array")
    size = (tile, max(1, round(tile * image.shape[0] / image.shape[1])))
    layout = Layout(*size)
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    values = np.asarray(
        Image.fromarray(map_.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    tiles = [("image", picture), ("anomaly map", draw_map(values, scale))]
    truth = None
    if mask is not None:
        resized = Image.fromarray(np.uint8(255) * (np.asarray(mask) > 0)).resize(
            size, Image.Resampling.BOX
        )
        truth = np.asarray(resized) > 0
        caption = "ground truth" if truth.any() else "ground truth: none"
        tiles.insert(1, (caption, np.repeat(truth[..., None] * np.uint8(255), 3, axis=2)))
    tiles.append(("overlay", draw_overlay(picture, truth, values, scale)))

    panel = Image.new("RGB", layout.size(len(tiles)), _PAPER)
    draw = ImageDraw.Draw(panel)
    for position, (caption, pixels) in enumerate(tiles):
        left = layout.left(position)
        panel.paste(Image.fromarray(pixels), (left, layout.top))
        draw.text((left, layout.top - 6), caption, _FAINT_INK, _font(12), anchor="ls")
    _draw_legend(draw, layout, len(tiles), truth is not None and bool(truth.any()), scale)
    _draw_title(draw, layout, len(tiles), name, score)
    _draw_colour_bar(panel, draw, layout, len(tiles), scale)
    return panel


def _draw_title(draw, layout: Layout, tiles: int, name: str, score: float | None) -> None:
    right = layout.left(tiles) - layout.gap
    title, printed = name.replace("/", " · "), "" if score is None else f"score {score:.3f}"
    room = right - layout.margin - draw.textlength(f"  {printed}", _font(16))
    if draw.textlength(title, _font(16)) > room:
        while title and draw.textlength(f"{title}…", _font(16)) > room:
            title = title[:-1]
        title += "…"
    draw.text((layout.margin, 25), title, _INK, _font(16), anchor="ls")
    draw.text((right, 25), printed, _INK, _font(16), anchor="rs")


def _draw_legend(draw, layout: Layout, tiles: int, has_defect: bool, scale: Scale) -> None:
    """What the outlines mean, right-aligned above the overlay."""
    entries = [(GROUND_TRUTH, "ground truth")] if has_defect else []
    if scale.threshold is not None:
        entries.append((ABOVE_THRESHOLD, f"map > {scale.threshold:.3g}"))
    right = layout.left(tiles) - layout.gap
    baseline = layout.top - 6
    for colour, text in reversed(entries):
        draw.text((right, baseline), text, _FAINT_INK, _font(11), anchor="rs")
        right -= round(draw.textlength(text, _font(11))) + 12
        draw.rectangle((right, baseline - 9, right + 9, baseline), colour, _FAINT_INK)
        right -= 8


def _draw_colour_bar(panel, draw, layout: Layout, tiles: int, scale: Scale) -> None:
    left = layout.left(tiles)
    bar = colours(np.linspace(1, 0, layout.tile_height))[:, None].repeat(layout.bar_width, axis=1)
    panel.paste(Image.fromarray(bar), (left, layout.top))
    bottom = layout.top + layout.tile_height - 1
    places = zip(scale.ticks, (0.0, 0.5, 1.0), ("ls", "lm", "lt"), strict=True)
    for value, share, anchor in places:
        at = (left + layout.bar_width + 5, bottom - share * (layout.tile_height - 1))
        draw.text(at, f"{value:.2g}", _FAINT_INK, _font(12), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "drawing panels needs matplotlib; install it with `pip install 'stlm_jax[report]'`"
        ) from error
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)
