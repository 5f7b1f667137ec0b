"""Pictures of results written to files, one PNG an image."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlm_jax.drawing.colours import Scale
from stlm_jax.drawing.encode import encode
from stlm_jax.drawing.panel import draw_panel
from stlm_jax.runtime.files import write_atomically

_LONGEST_STEM = 60  # characters; file systems allow 255 bytes


def write_panels(
    directory: str | os.PathLike,
    images: np.ndarray,
    masks: np.ndarray | None,
    maps: np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    scale: Scale | None = None,
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
        scale: of all panels.

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
            scale,
        )
        paths.append(
            write_atomically(Path(directory) / f"{stem}.png", encode(panel, optimize=True))
        )
    return paths


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
