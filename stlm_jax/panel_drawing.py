"""One result as a picture: image, ground truth, anomaly map and overlay in a row.

The colour scale is the same in every panel, so a faint map looks faint; needs `stlm_jax[report]`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from stlm_jax.errors import UserError

COLORMAP = "inferno"
CONTOUR = (0, 255, 213)
THRESHOLD_CONTOUR = (255, 255, 255)
OVERLAY_OPACITY = 0.85
MINIMAL_TILE = 224
_INK = (28, 28, 32)
_FAINT_INK = (110, 110, 118)
_PAPER = (255, 255, 255)
_CONTOUR_WIDTH = 2


@dataclass(frozen=True)
class Style:
    """What all panels of a set share.

    Attributes:
        vmin: the map value at the dark end of the colour scale, where the overlay is transparent.
        vmax: the map value at the bright end; values beyond either end are clipped.
        threshold: the map value in the middle of the colour scale, which runs linearly on either
            side of it; what is above is outlined. None: no outline, one linear scale.
        tile: width in pixels of each of the pictures in a row, at least `MINIMAL_TILE`.

    Raises:
        UserError: the colour scale is empty, the threshold not inside it, or the tiles too small.
    """

    vmin: float = 0.0
    vmax: float = 1.0
    threshold: float | None = None
    tile: int = 256

    def __post_init__(self):
        """Refuse a colour scale without extent and tiles that no caption fits."""
        if not self.vmin < self.vmax:
            raise UserError(f"colour scale {self.vmin}..{self.vmax} is empty; raise its upper end")
        if self.threshold is not None and not self.vmin < self.threshold < self.vmax:
            raise UserError(
                f"threshold {self.threshold} is not inside the colour scale "
                f"{self.vmin}..{self.vmax}; widen it"
            )
        if self.tile < MINIMAL_TILE:
            raise UserError(f"panel tiles of {self.tile} pixels; give at least {MINIMAL_TILE}")

    @classmethod
    def of(cls, threshold: float | None) -> Self:
        """The style of a model: maps of 0..1 and its pixel threshold, finite, if it has one.

        The scale is widened where it would not hold the threshold inside.
        """
        if threshold is None or 0 < threshold < 1:
            return cls(threshold=threshold)
        return cls(min(0.0, threshold - 1), max(1.0, threshold + 1), threshold)

    @property
    def ticks(self) -> tuple[float, float, float]:
        """The map values at the dark end, the middle and the bright end of the colour scale."""
        middle = (self.vmin + self.vmax) / 2 if self.threshold is None else self.threshold
        return self.vmin, middle, self.vmax

    def share(self, values: np.ndarray) -> np.ndarray:
        """Map values as positions on the colour scale, 0..1, of any shape."""
        return np.interp(values, self.ticks, (0.0, 0.5, 1.0))


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
    style: Style | None = None,
) -> Image.Image:
    """Image, ground truth, anomaly map and overlay in a row, with a title and a colour bar.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (h, w) {0, 1}, any size; None leaves ground truth out. A defect smaller than a
            pixel of the tile still shows.
        map_: (h, w) real, any size.
        name: the title, parts separated by `/`.
        score: printed beside the title.
        style: colour scale, threshold and size.

    Raises:
        UserError: matplotlib is missing.
        ValueError: a shape or dtype is wrong, or the map is not finite.
    """
    style = style or Style()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image of {name} is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    if map_.ndim != 2 or not np.isfinite(map_).all():
        raise ValueError(f"map of {name} is not a finite (h, w) array")
    size = (style.tile, max(1, round(style.tile * image.shape[0] / image.shape[1])))
    layout = Layout(*size)
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    values = np.asarray(
        Image.fromarray(map_.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    tiles = [("image", picture), ("anomaly map", draw_map(values, style))]
    truth = None
    if mask is not None:
        resized = Image.fromarray(np.uint8(255) * (np.asarray(mask) > 0)).resize(
            size, Image.Resampling.BOX
        )
        truth = np.asarray(resized) > 0
        caption = "ground truth" if truth.any() else "ground truth: none"
        tiles.insert(1, (caption, np.repeat(truth[..., None] * np.uint8(255), 3, axis=2)))
    tiles.append(("overlay", draw_overlay(picture, truth, values, style)))

    panel = Image.new("RGB", layout.size(len(tiles)), _PAPER)
    draw = ImageDraw.Draw(panel)
    for position, (caption, pixels) in enumerate(tiles):
        left = layout.left(position)
        panel.paste(Image.fromarray(pixels), (left, layout.top))
        draw.text((left, layout.top - 6), caption, _FAINT_INK, _font(12), anchor="ls")
    _draw_legend(draw, layout, len(tiles), truth is not None and bool(truth.any()), style)
    _draw_title(draw, layout, len(tiles), name, score)
    _draw_colour_bar(panel, draw, layout, len(tiles), style)
    return panel


def colours(shares: np.ndarray) -> np.ndarray:
    """Positions 0..1 on the colour scale, (…), as uint8 RGB, (…, 3).

    Raises:
        UserError: matplotlib is missing.
    """
    return _matplotlib().colormaps[COLORMAP](shares, bytes=True)[..., :3]


def draw_map(values: np.ndarray, style: Style) -> np.ndarray:
    """A map, (h, w) real, in the colours of the scale, (h, w, 3) uint8.

    Raises:
        UserError: matplotlib is missing.
    """
    return colours(style.share(values))


def draw_overlay(
    picture: np.ndarray, truth: np.ndarray | None, values: np.ndarray, style: Style
) -> np.ndarray:
    """The map over the picture in grey, the more opaque the hotter, and the outlines on top.

    Args:
        picture: (h, w, 3) uint8 RGB.
        truth: (h, w) bool; None where it is not known.
        values: the map, (h, w) real.
        style: colour scale and threshold.

    Returns:
        (h, w, 3) uint8.

    Raises:
        UserError: matplotlib is missing.
    """
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    opacity = OVERLAY_OPACITY * style.share(values)[..., None]
    result = np.rint((1 - opacity) * grey + opacity * draw_map(values, style)).astype(np.uint8)
    if style.threshold is not None:
        above = values > style.threshold
        inside = ndimage.binary_erosion(above, iterations=_CONTOUR_WIDTH, border_value=1)
        result[above & ~inside] = THRESHOLD_CONTOUR
    if truth is not None and truth.any():
        outline = ndimage.binary_dilation(truth, iterations=_CONTOUR_WIDTH)
        halo = ndimage.binary_dilation(outline) & ~outline
        result[halo] //= 3
        result[outline & ~truth] = CONTOUR
    return result


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


def _draw_legend(draw, layout: Layout, tiles: int, has_defect: bool, style: Style) -> None:
    """What the outlines mean, right-aligned above the overlay."""
    entries = [(CONTOUR, "ground truth")] if has_defect else []
    if style.threshold is not None:
        entries.append((THRESHOLD_CONTOUR, f"map > {style.threshold:.3g}"))
    right = layout.left(tiles) - layout.gap
    baseline = layout.top - 6
    for colour, text in reversed(entries):
        draw.text((right, baseline), text, _FAINT_INK, _font(11), anchor="rs")
        right -= round(draw.textlength(text, _font(11))) + 12
        draw.rectangle((right, baseline - 9, right + 9, baseline), colour, _FAINT_INK)
        right -= 8


def _draw_colour_bar(panel, draw, layout: Layout, tiles: int, style: Style) -> None:
    left = layout.left(tiles)
    bar = colours(np.linspace(1, 0, layout.tile_height))[:, None].repeat(layout.bar_width, axis=1)
    panel.paste(Image.fromarray(bar), (left, layout.top))
    bottom = layout.top + layout.tile_height - 1
    places = zip(style.ticks, (0.0, 0.5, 1.0), ("ls", "lm", "lt"), strict=True)
    for value, share, anchor in places:
        at = (left + layout.bar_width + 5, bottom - share * (layout.tile_height - 1))
        draw.text(at, f"{value:.2g}", _FAINT_INK, _font(12), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    fonts = Path(_matplotlib().get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def _matplotlib():
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "drawing panels needs matplotlib; install it with `pip install 'stlm_jax[report]'`"
        ) from error
    return matplotlib
