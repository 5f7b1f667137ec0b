"""A model that sees colours in place of anomalies, and images to show it."""

import numpy as np
from PIL import Image

from stlm_jax.config import default
from stlm_jax.inference.predictor import Predictor

SIZE = 64


def see_colours(images):
    """A model whose map is the red channel and whose other map is the green one."""
    maps = images.astype(np.float32) / 255
    return maps[..., 0], maps[..., 1]


class ColourPredictor(Predictor):
    """A Predictor around `see_colours`; its scores are those of whole squares."""

    def __init__(self, config):
        self._batch_size, self._top_k, self.batches = 3, 10, []

    def _batch(self, pixels):
        self.batches.append(pixels.shape)
        maps = see_colours(pixels)
        scores = [np.sort(m.reshape(len(m), -1))[:, -10:].mean(1) for m in maps]
        return dict(map=maps[0], map_without_fa=maps[1], score=scores[0],
                    score_without_fa=scores[1])  # fmt: skip


def config_of(geometry="squash", tile=0, skip=False):
    config = default()
    config.image_size, config.evaluate.score_top_k = SIZE, 10
    config.data.geometry, config.predict.tile = geometry, tile
    config.data.on_error = "skip" if skip else "raise"
    return config


def smooth(height, width, seed=0):
    """An image without detail that resizing would lose; values from 20 to 90."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(20, 90, (3, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(20, 90)


def write(folder, pictures):
    paths = []
    for index, pixels in enumerate(pictures):
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths
