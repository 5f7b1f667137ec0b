"""What a search optimises, as a picture that a person can look at before it begins."""

from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stlm_jax.drawing.colours import GROUND_TRUTH, outline_of
from stlm_jax.drawing.encode import encode
from stlm_jax.evaluation.pseudo_validation import VARIANTS, Example, examples, good_images
from stlm_jax.runtime.files import write_atomically

_TILE, _CAPTION, _GAP = 192, 18, 6  # pixels
_CATEGORIES, _IMAGES = 5, 3  # at most, and of each of them


def draw_objective(config: ml_collections.ConfigDict, path: Path) -> None:
    """Writes a sheet of good images, each with its defects, outlined in a second picture."""
    rows: list[list[Example]] = []
    for category in config.data.categories[:_CATEGORIES]:
        found = list(examples(config, good_images(config, category)[:_IMAGES]))
        rows += [found[i : i + 1 + VARIANTS] for i in range(0, len(found), 1 + VARIANTS)]
    step, height = _TILE + _GAP, _CAPTION + 2 * (_TILE + _GAP)
    sheet = Image.new("RGB", (_GAP + step * (1 + VARIANTS), height * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, row in enumerate(rows):
        top = number * height
        for place, example in enumerate(row):
            left = _GAP + place * step
            draw.text((left, top + 3), f"{example.name}: {example.kind}", "black", font)
            pixels = example.view.box.of(example.view.pixels)
            marked = pixels.copy()
            marked[outline_of(example.mask)] = GROUND_TRUTH
            for line, each in enumerate((pixels, marked)):
                tile = Image.fromarray(np.ascontiguousarray(each)).resize((_TILE, _TILE))
                sheet.paste(tile, (left, top + _CAPTION + line * (_TILE + _GAP)))
    write_atomically(path, encode(sheet))
