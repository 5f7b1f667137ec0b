"""A training's targets out of a teacher feature store, drawn and read ahead of the steps."""

import zlib
from typing import Any

import jax
import ml_collections
import numpy as np

from stlm_jax.data.cache import ImageCache
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note, track
from stlm_jax.training.feature_cache import Shapes, rotates
from stlm_jax.training.feature_store import COMMAND, FeatureStore, pixel_digest, place_of
from stlm_jax.training.rotation import policy_of
from stlm_jax.training.state import category_key
from stlm_jax.training.teacher import TARGET_DTYPE


def category_key_data(seed: int, category: str) -> np.ndarray:
    """uint32 data of the key of a category's variants."""
    return np.asarray(jax.random.key_data(category_key(seed, f"store/{category}")))


def abstract_stored(levels: Shapes) -> dict[str, Any]:
    """The shapes of what `StoredFeatures.of` gives for a batch with such levels (N, h, w, C)."""
    count = levels[0].shape[0]
    features = tuple(jax.ShapeDtypeStruct(x.shape, TARGET_DTYPE) for x in levels)
    key = category_key_data(0, "")
    return {
        "key": jax.ShapeDtypeStruct(key.shape, key.dtype),
        "place": jax.ShapeDtypeStruct((count,), np.uint32),
        "number": jax.ShapeDtypeStruct((count,), np.int32),
        "clean": jax.ShapeDtypeStruct((count,), np.bool_),
        "targets": (features, features),
    }


class StoredFeatures:
    """What a category's batches train on: for each image the clean one or one of its variants.

    Which it is depends on the run's seed and the batch's number alone, so that features are read
    while the device works, and a run that is gone on with draws what one that never stopped does.

    Attributes:
        order: tells the store from another; in the loader's state.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        category: str,
        images: ImageCache,
        store: FeatureStore,
    ):
        """Refuses a store that has not all the images, or has them turned otherwise.

        Args:
            config: of the run.
            category: whose images.
            images: they.
            store: where their features lie.
        """
        self._store, self._category = store, category
        self._rotates = rotates(config, category)
        self._draws = config.seed, zlib.crc32(category.encode())
        self._clean_probability = config.pseudo.clean_probability
        self._key = category_key_data(store.description["seed"], category)
        self._digests = _known_digests(config, category, images, store)
        self.order = {"store": store.identity()}

    def of(self, number: int, index: np.ndarray, rows: slice = slice(None)) -> dict[str, Any]:
        """The part `stored` of batch `number`, which has the images of `index`; host arrays."""
        rng = np.random.default_rng((*self._draws, number))
        variants = rng.integers(0, self._store.variants, len(index), np.int32)[rows]
        clean = (rng.random(len(index)) < self._clean_probability)[rows]
        digests = [self._digests[i] for i in index[rows]]
        shape = (len(digests), *self._store.shape)
        of_pseudo, of_clean = (np.empty(shape, TARGET_DTYPE) for _ in range(2))
        for sample, (digest, variant) in enumerate(zip(digests, variants, strict=True)):
            slots = list(self._store.slots_of(int(variant), self._rotates))
            slots = slots[:1] if clean[sample] else slots
            read = self._store.read(self._category, digest, slots)
            of_clean[sample], of_pseudo[sample] = read[0], read[-1]
        levels = range(shape[1])
        of_samples = {
            "place": np.array([place_of(digest) for digest in digests], np.uint32),
            "number": variants,
            "clean": clean,
            "targets": tuple(
                tuple(np.ascontiguousarray(x[:, level]) for level in levels)
                for x in (of_pseudo, of_clean)
            ),
        }
        return {"stored": {**of_samples, "key": self._key}}


def _known_digests(
    config: ml_collections.ConfigDict, category: str, images: ImageCache, store: FeatureStore
) -> list[str]:
    """What the category's images are called in the store."""
    policy, theirs = policy_of(config.data.rotation, category), store.policy(category)
    if theirs is not None and theirs != policy:
        raise UserError(
            f"{store.folder / category}: holds features of images that are turned by "
            f"data.rotation {theirs}, the run's is {policy}: write another store with {COMMAND}"
        )
    there = store.digests(category)
    numbers = track(range(len(images)), f"compare {category} with the store", len(images))
    digests = [pixel_digest(images[number]) for number in numbers]
    missing = [number for number, digest in enumerate(digests) if digest not in there]
    if missing:
        more = f" and {len(missing) - 1} more images" if missing[1:] else ""
        raise UserError(
            f"{store.folder / category}: holds no features of {images.file(missing[0])}{more}: "
            f"they are not there yet, or were read otherwise (config.data.geometry, .depth): write "
            f"them with {COMMAND}"
        )
    note(f"{category}: {store.variants} variants an image from {store.folder}")
    return digests
