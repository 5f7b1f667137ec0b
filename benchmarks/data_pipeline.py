"""How fast training images come: `python -m benchmarks.data_pipeline [--size=1024] [--rounds=N]`.

Compares, in one run, the published recipe, which makes every sample on the host, with the parts of
ours: decoding files, serving decoded images in shuffled batches, and making pseudo-anomalies on
the device. Files are PNG images of a noisy scene and JPEG textures, written for the occasion and
in the system's page cache. The recipe runs in one process for each core, as many as a loader's
workers would be; on a machine without an accelerator the device is the same cores.
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import published_recipe
from benchmarks.timing import seconds, table
from stlm_jax.config import default
from stlm_jax.data.cache import ImageCache
from stlm_jax.data.loader import TrainLoader
from stlm_jax.data.reader import ImageReader
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.training.pseudo_anomaly import pseudo_batch
from stlm_jax.training.rotation import rotate_batch
from stlm_jax.training.state import hyperparameters

BATCH = 2  # published
REPEAT = 64  # of the warm path in a round, so that batches made ahead before it do not matter


def write_images(folder: Path, count: int, size: int, suffix: str) -> list[Path]:
    """Smooth scenes with a camera's noise, which compress as photographs of parts do."""
    paths = []
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        scene = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        noisy = np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{index}{suffix}")
        Image.fromarray(noisy).save(paths[-1])
    return paths


def make_generator(textures):
    """A function that rotates a batch and makes it pseudo-anomalous, each time by another key."""
    config = default()
    config.data.rotation.default = "right_angles"
    hyper = hyperparameters(config)

    @jax.jit
    def generate(key, images, textures):
        clean = rotate_batch(key, images, hyper)
        return clean, *pseudo_batch(key, clean, textures, hyper)

    keys = map(jax.random.key, itertools.count())
    textures = jax.device_put(textures)
    return lambda images: generate(next(keys), images, textures)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=8, help="a multiple of 2")
    arguments = parser.parse_args()
    size, count = arguments.size, arguments.images
    cores = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(cores, mp_context=spawn) as workers,
    ):
        folder = Path(name)
        (folder / "textures").mkdir()
        paths = write_images(folder, count, size, ".png")
        textures = write_images(folder / "textures", count, 500, ".jpg")
        reading = ImageReader(size)
        cache = ImageCache(paths, reading, float("inf"))
        loader = TrainLoader(cache, BATCH, seed=0)
        bank = read_texture_bank(folder / "textures", count, size, 0)
        generate = make_generator(bank)
        fixed = jax.device_put(np.stack([cache[i] for i in range(BATCH)]))
        seeds = itertools.count()

        def published():
            parts = [workers.submit(published_recipe.make, image, texture, size, next(seeds))
                     for image, texture in zip(paths, textures, strict=True)]  # fmt: skip
            return [part.result() for part in parts]

        def warm():
            for _ in range(REPEAT * count // BATCH):
                batch = jax.device_put(next(loader)["image"])
            return batch

        def generated():
            return [generate(fixed) for _ in range(count // BATCH)]

        def whole():
            return [generate(next(loader)["image"]) for _ in range(count // BATCH)]

        functions = {
            "published recipe, on the host": published,
            "cold: decode and resize": lambda: list(reading.views(paths)),
            "warm: cache to device": warm,
            "rotation, Perlin, blend on device": generated,
            "ours, warm cache and device": whole,
        }
        measured = seconds(functions, arguments.rounds)
        loader.close()
    measured["warm: cache to device"] /= REPEAT
    print(f"{jax.devices()[0].device_kind}, {cores} cores, {size} px, batch {BATCH}")
    print(table(measured, "published recipe, on the host", count))


if __name__ == "__main__":
    main()
