"""Pictures of results written to files: one PNG an image, and sheets of several."""

import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stlm_jax.files import write_atomically
from stlm_jax.panel_drawing import Style, draw_panel

_LONGEST_STEM = 60  # characters; file systems allow 255 bytes


def write_panels(
    directory: str | os.PathLike,
    images: np.ndarray,
    masks: np.ndarray | None,
    maps: np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    style: Style | None = None,
) -> list[Path]:
    """Draw one panel an image and write it as PNG.

    Args:
        directory: made when absent.
        images: (N, H, W, 3) uint8 RGB.
        masks: (N, h, w) {0, 1}, any size; None leaves ground truth out.
        maps: (N, h, w) real, any size, on one scale for all images.
        names: N titles such as `bottle/broken_large/003`; files are named after them, with `_`
            for what does not belong in a file name and a number after a repeated one.
        scores: N image scores, printed in the title.
        style: colour scale, threshold and size.

    Returns:
        The N paths, in order.

    Raises:
        UserError: matplotlib is missing.
        ValueError: lengths or shapes disagree, or a map is not finite.
    """
    columns = {"images": images, "masks": masks, "maps": maps, "names": names, "scores": scores}
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"panels need one of each for an image, not {lengths}")
    paths = []
    for index, stem in enumerate(_file_stems(names)):
        panel = draw_panel(
            images[index],
            None if masks is None else masks[index],
            maps[index],
            names[index],
            None if scores is None else scores[index],
            style,
        )
        paths.append(write_atomically(Path(directory) / f"{stem}.png", _png(panel)))
    return paths


def write_contact_sheet(
    path: str | os.PathLike, panels: Sequence[Path], columns: int = 1, width: int | None = None
) -> Path:
    """Join panels into one PNG, row by row.

    Args:
        path: the PNG to write.
        panels: PNG files, as `write_panels` returns them; smaller ones are padded with white.
        columns: panels side by side.
        width: width of the sheet in pixels; the panels' own by default.

    Raises:
        ValueError: no panels, or a number that is not positive.
    """
    if not panels or columns < 1 or (width is not None and width < 1):
        raise ValueError(f"no sheet of {len(panels)} panels, {columns} columns, width {width}")
    pictures = []
    for panel in panels:
        with Image.open(panel) as file:
            pictures.append(file.convert("RGB"))
    cell_width = max(picture.width for picture in pictures)
    cell_height = max(picture.height for picture in pictures)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (column * cell_width, row * cell_height))
    if width is not None:
        height = max(1, round(sheet.height * width / sheet.width))
        sheet = sheet.resize((width, height), Image.Resampling.LANCZOS)
    return write_atomically(path, _png(sheet))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _file_stems(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    stems = []
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name).lstrip(".")[-_LONGEST_STEM:] or "panel"
        stem, number = base, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems
