"""Where the targets of a run come from: the teacher, what is kept of it, or a store."""

import functools
from typing import Any

import ml_collections
import numpy as np
from jax.sharding import Mesh

from stlm_jax.data.cache import ImageCache
from stlm_jax.data.loader import Companion
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.training.feature_cache import FeatureCache, abstract_part
from stlm_jax.training.feature_store import FeatureStore
from stlm_jax.training.start import load_teacher, read_teacher
from stlm_jax.training.store_description import describe, feature_shapes, require_same
from stlm_jax.training.stored_features import StoredFeatures, abstract_stored
from stlm_jax.weights.digest import weights_digest


class Features:
    """What the targets of a category add to its batches and take from its steps.

    Attributes:
        companion: of the category's loader: what is read ahead of time.
    """

    def __init__(self, companion: Companion | None = None, cache: FeatureCache | None = None):
        """Features out of a store, or kept in a cache, or neither."""
        self.companion, self._cache = companion, cache

    def parts(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Further parts of a step's batch that the loader has `drawn`; host arrays."""
        if self._cache is not None:
            return {"cached": self._cache.of(drawn["index"])}
        return {"stored": drawn["stored"]} if self.companion else {}

    def take(self, drawn: dict[str, Any], produced: Any) -> None:
        """Takes what the step of a batch has `produced`, or will have; on the device."""
        if self._cache is not None:
            self._cache.take(drawn["index"], produced)


class Targets:
    """The teacher, and what stands in for it.

    Attributes:
        teacher: its module; None where none runs.
        variables: the module's, on the device.
        texture_seed: by which the bank of textures is drawn; None: by that of each run.
    """

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh | None = None):
        """Loads the teacher of `config.teacher` onto the devices, or opens the store."""
        self.texture_seed: int | None = None
        self._store: FeatureStore | None = None
        # Tracing a large teacher takes a while, and every pack asks.
        self._levels = functools.cache(functools.partial(feature_shapes, config))
        if config.teacher.store:
            self.teacher = self.variables = None
            self._store = FeatureStore.open(path_of(config.teacher.store))
            self.texture_seed = self._store.description["seed"]
        else:
            self.teacher, self.variables = load_teacher(config, mesh)
        self._keeps = self.teacher is not None and config.teacher.cache_gib > 0

    def abstract_parts(self, samples: int) -> dict[str, Any]:
        """Shapes of what `Features.parts` gives for a batch of so many samples."""
        if self._store:
            return {"stored": abstract_stored(self._levels(samples))}
        if self._keeps:
            return {"cached": abstract_part(self._levels(samples))}
        return {}

    def check(self, config: ml_collections.ConfigDict, textures: np.ndarray) -> None:
        """Refuses a store of another teacher, size or generator than the run's.

        Args:
            config: of the run; where its `teacher.checkpoint` is empty, the store's teacher of
                that name is taken at its word.
            textures: the bank.
        """
        if self._store is None:
            return
        checkpoint, weights = config.teacher.checkpoint, None
        if checkpoint == "none":
            raise UserError(
                "config.teacher.store: features are for a teacher, and config.teacher.checkpoint "
                "is none: leave one of them empty"
            )
        if checkpoint:
            weights = weights_digest(read_teacher(config)[1])
        ours = describe(config, weights, textures)
        require_same(self._store.folder, self._store.description, ours)

    def of_category(
        self,
        config: ml_collections.ConfigDict,
        category: str,
        images: ImageCache,
        samples: int,
    ) -> Features:
        """Those of a category of the run.

        Args:
            config: of the run.
            category: its name.
            images: to train on.
            samples: of a batch that this process has.
        """
        if self._store:
            return Features(companion=StoredFeatures(config, category, images, self._store))
        if self._keeps:
            cache = FeatureCache(config, category, len(images), self._levels(samples))
            return Features(cache=cache)
        return Features()
