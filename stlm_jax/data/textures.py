"""The bank of textures that pseudo-anomalies are blended from (published: the DTD photographs)."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from stlm_jax.data import tfds_file
from stlm_jax.data.folders import is_image
from stlm_jax.data.images import read_image
from stlm_jax.data.photographs import photograph_file
from stlm_jax.data.reader import readable
from stlm_jax.data.records import File
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

# Photographs inside scikit-image's wheel, less brick and gravel, which the demo categories show.
PHOTOGRAPHS = (
    "astronaut.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
PREPARED = "tfds:"
CROP_SCALES = (0.25, 0.8)  # side of a crop relative to the photograph's shorter side


def texture_files(root: str | os.PathLike[str]) -> Sequence[File]:
    """The images that textures are drawn from.

    `root` is a folder, read with its subfolders; `tfds:` and a data set that TFDS has prepared in
    its data folder, or such a data set's folder, as in `tfds:dtd` or `tfds:/data/dtd`: the images
    of all its splits; or '' for those that scikit-image ships.
    """
    if not os.fspath(root):
        return [photograph_file(name) for name in PHOTOGRAPHS]
    if os.fspath(root).startswith(PREPARED):
        return tfds_file.images_of(os.fspath(root).removeprefix(PREPARED))
    folder = path_of(root)
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


def read_texture_bank(
    root: str | os.PathLike[str], count: int, size: int, seed: int, skip: bool = False
) -> np.ndarray:
    """Textures drawn by seed from `texture_files(root)`, (count, size, size, 3) uint8.

    Where there are `count` images or more, each is used whole, at most once. Where there are
    fewer, all are used whole, and random square crops of them at varied scale make up the number.
    With `skip`, images that cannot be read are left out, each with a note.
    """
    if count < 1:
        raise UserError(f"data.texture_count: {count} is not positive: set it to 1 or more")
    files = texture_files(root)
    drawn = [files[i] for i in np.random.default_rng(seed).permutation(len(files))]
    bank = np.empty((count, size, size, 3), np.uint8)
    whole: list[File] = []
    for index, pixels in readable(drawn, lambda path: read_image(path, size), skip):
        bank[len(whole)] = pixels
        whole.append(drawn[index])
        if len(whole) == count:
            break
    if not whole:
        raise UserError(f"data.texture_root: no image of {os.fspath(root)} can be read")

    def cut(first: int) -> None:
        later = range(first + len(whole), count, len(whole))
        if later:
            image = Image.fromarray(read_image(whole[first], None))
            for index in later:
                bank[index] = _crop(image, size, np.random.default_rng([seed, index]))

    for _ in in_threads(cut, range(len(whole))):
        pass
    return bank
