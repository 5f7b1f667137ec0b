"""The good images that the demo's student is pretrained on, written as an ordinary data set."""

from pathlib import Path

import numpy as np

from stlm_jax.drawing.encode import encode
from stlm_jax.pretraining import images
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.progress import track

CATEGORY = "mixed"
SIZE = 256  # pixels


def draw_good_image(seed: int, index: int, photographs: list[np.ndarray]) -> np.ndarray:
    """A crop or a rendering in random colours, light and noise; (SIZE, SIZE, 3) uint8.

    The same arguments give the same pixels.
    """
    rng = np.random.default_rng((seed, index))
    image = images.degrade(rng, images.draw_source(rng, photographs, SIZE))
    return np.clip(image, 0, 255).astype(np.uint8)


def write_set(root: Path, count: int, seed: int) -> None:
    """Writes `count` images under `root` as the training images of one category of MVTec AD's form.

    Images that are there already are kept.
    """
    photographs = images.read_photographs(images.TRAINING_PHOTOGRAPHS)
    folder = root / CATEGORY / "train" / "good"
    for index in track(range(count), "draw"):
        path = folder / f"{index:04d}.png"
        if not path.exists():
            write_atomically(path, encode(draw_good_image(seed, index, photographs)))
