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
from stlm_jax.runtime.paths import path_of

_LONGEST_STEM = 60  # characters; file systems allow 255 bytes


def write_panels(
    directory: str | os.PathLike,
    images: np.ndarray,
    masks: Sequence[np.ndarray | None] | np.ndarray | None,
    maps: Sequence[np.ndarray] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    scale: Scale | None = None,
) -> list[Path]:
    """Draws one panel an image and writes it as PNG; the N paths, in order.

    Args:
        directory: made when absent.
        images: (N, H, W, 3) uint8 RGB.
        masks: N times (h, w) {0, 1}, any size, or None where there is no ground truth to show.
        maps: N times (h, w) real, any size, on one scale for all images.
        names: N titles such as `bottle/broken_large/003`; files are named after them, with `_`
            for what does not belong in a file name and a number after a repeated one.
        scores: N image scores, printed in the title.
        scale: of all panels.
    """
    columns = {"images": images, "masks": masks, "maps": maps, "names": names, "scores": scores}
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"panels need one of each for an image, not {lengths}")
    paths = []
    for index, stem in enumerate(_file_stems(names)):
        mask = None if masks is None else masks[index]
        score = None if scores is None else scores[index]
        panel = draw_panel(images[index], mask, maps[index], names[index], score, scale)
        path = path_of(directory) / f"{stem}.png"
        paths.append(write_atomically(path, encode(panel, optimize=True)))
    return paths


def _file_stems(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    stems = []
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name).lstrip(".")[-_LONGEST_STEM:] or "panel"
        stem, number = base, 1
        while stem.lower() in taken:  # file systems that ignore case would overwrite
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems
