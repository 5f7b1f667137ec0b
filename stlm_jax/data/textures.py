"""The bank of textures that pseudo-anomalies are blended from (published: the DTD photographs)."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from stlm_jax.data.demo_texture import bundled_photograph
from stlm_jax.data.images import read_image
from stlm_jax.data.layout import is_image
from stlm_jax.errors import UserError

# Photographs inside scikit-image's wheel, less brick and gravel, which the demo categories show.
PHOTOGRAPHS = (
    "astronaut.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
CROP_SCALES = (0.25, 0.8)  # side of a crop relative to the photograph's shorter side


def texture_files(root: str | os.PathLike[str]) -> list[Path]:
    """The images that textures are drawn from; '' names those that scikit-image ships.

    Raises:
        UserError: `root` is not a folder of images, or scikit-image is not installed.
    """
    if not os.fspath(root):
        return [bundled_photograph(name) for name in PHOTOGRAPHS]
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f"data.texture_root: {folder} is not a folder: set it to a folder of images, "
            "or to '' for scikit-image's photographs"
        )
    files = sorted(filter(is_image, folder.rglob("*")))
    if not files:
        raise UserError(f"data.texture_root: {folder} holds no image: set it to a folder of images")
    return files


def _crop(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    shorter = min(image.size)
    side = max(1, round(shorter * rng.uniform(*CROP_SCALES)))
    left = int(rng.integers(0, image.width - side + 1))
    top = int(rng.integers(0, image.height - side + 1))
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_texture_bank(root: str | os.PathLike[str], count: int, size: int, seed: int) -> np.ndarray:
    """Textures drawn from a folder by seed.

    Where the folder has `count` images or more, each is used whole, at most once. Where it has
    fewer, all are used whole, and random square crops of them at varied scale make up the number.

    Args:
        root: folder of images, read with its subfolders; '' for the photographs that
            scikit-image ships (none of them is in the demo set).
        count: number of textures.
        size: side in pixels.
        seed: of the choice.

    Returns:
        (count, size, size, 3) uint8.

    Raises:
        UserError: when `root` is not a folder of images or `count` is not positive.
        ImageError: when an image that was drawn cannot be read.
    """
    if count < 1:
        raise UserError(f"data.texture_count: {count} is not positive: set it to 1 or more")
    files = texture_files(root)
    order = np.random.default_rng(seed).permutation(len(files))
    bank = np.empty((count, size, size, 3), np.uint8)

    def cut(first: int) -> None:
        path = files[order[first]]
        bank[first] = read_image(path, size)
        later = range(first + len(files), count, len(files))
        if later:
            image = Image.fromarray(read_image(path, None))
            for index in later:
                bank[index] = _crop(image, size, np.random.default_rng([seed, index]))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(cut, range(min(count, len(files)))):
            pass
    return bank
