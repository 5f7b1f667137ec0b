"""How values of more than eight bits become 0..255, `config.data.depth`.

A depth is a text: `dtype`, from 0 to the largest value of the file's type (1 of floats); `file`,
from each file's own smallest to its largest; or `LOW,HIGH`. `train` stands for the range of a
category's training images, which is stored with its model as one of the other three.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from PIL import ImageFile

from stlm_jax.config.rules import DTYPE, FILE, TRAIN, checked_depth, range_of
from stlm_jax.data.masks import deep_values, is_deep
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_json
from stlm_jax.workdir import DEPTH

_WIDE = re.compile(r"(?:RGB|RGBX|RGBA|LA);16[BLN]")  # raw modes of which PIL keeps the high bytes
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}
_QUANTILES = (0.001, 0.999)  # a hot pixel or a dead one does not count
_SAMPLE = 2**14  # pixels of an image that quantiles are of


def is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether a file that was just opened holds more than eight bits a channel."""
    return is_deep(image) or bool(_WIDE.fullmatch(raw_mode(image)))


def raw_mode(image: ImageFile.ImageFile) -> str:
    """What PIL calls the kind of pixels in a file that was just opened; '' if it does not say."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def wide_values(
    image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of a wide image, (H, W) or (H, W, 3) float32, and its alpha, (H, W) uint8.

    Args:
        image: just opened, not loaded.
        reopen: opens it again.
    """
    if is_deep(image):
        return deep_values(image), None
    raw = raw_mode(image)
    if raw.startswith("LA"):  # four bytes a pixel, which PIL reads as four channels
        image._mode = "RGBA"
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        pixels = np.asarray(image)
        return pixels[..., 0] * np.float32(256) + pixels[..., 1], pixels[..., 2]
    high = np.asarray(image)
    other_bytes = raw[:-1] + _OTHER_BYTE[raw[-1]]
    with reopen() as other:
        other.tile = [
            tile._replace(
                args=(other_bytes, *tile.args[1:]) if isinstance(tile.args, tuple) else other_bytes
            )
            for tile in other.tile
        ]
        low = np.asarray(other)
    values = high[..., :3] * np.float32(256) + low[..., :3]
    return values, high[..., 3] if high.shape[-1] == 4 else None


def to_8_bits(values: np.ndarray, depth: str, largest: float) -> np.ndarray:
    """Values of any shape as 0..255, uint8; those outside the depth's range become its ends.

    `largest` is the largest value of their type.
    """
    own = float(values.min()), float(values.max())
    low, high = (0.0, largest) if depth == DTYPE else range_of(depth) or own
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint(((values - low) * (255 / (high - low))).clip(0, 255)).astype(np.uint8)


def largest_of(mode: str) -> float:
    """The largest value that an image of PIL's `mode` may hold."""
    return {"F": 1.0, "I": 2.0**31 - 1}.get(mode, 65535.0)


def quantile_range(samples: Sequence[np.ndarray]) -> str:
    """The depth that the values of some images span, but for the outermost thousandths."""
    low, high = np.quantile(np.concatenate(samples), _QUANTILES)
    if high <= low:  # images of one value
        low, high = low - 1, low + 1
    return f"{low:.9g},{high:.9g}"


def sample_of(values: np.ndarray) -> np.ndarray:
    """So many values of an image as quantiles need, always the same: all, or of drawn pixels."""
    pixels = values.reshape(values.shape[0] * values.shape[1], -1)
    if len(pixels) > _SAMPLE:  # drawn, for a lattice would see the stripes of some textures only
        pixels = pixels[np.random.default_rng(0).integers(0, len(pixels), _SAMPLE)]
    return pixels.ravel()


def resolved(config: ml_collections.ConfigDict, folder: Path) -> ml_collections.ConfigDict:
    """`config`, with what the category's `folder` says of its depth in the place of `train`."""
    result = config.copy_and_resolve_references()
    if config.data.depth == TRAIN:
        result.data.depth = stored(folder)
    return result


def stored(folder: Path) -> str:
    """The depth that a category's model was trained with; `file` where it was before there were."""
    path = folder / DEPTH
    try:
        depth = read_json(path)["depth"]
        return checked_depth(depth)
    except FileNotFoundError:
        return FILE
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a depth ({error}): restore it, or train again") from error


def store(folder: Path, depth: str) -> None:
    """Writes a category's depth into its folder."""
    write_json(folder / DEPTH, {"depth": depth})
