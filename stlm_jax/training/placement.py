"""Where the arrays of a pack of trainings lie: leaves (groups, members of a group, …) on a mesh."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stlm_jax.runtime.mesh import MEMBER
from stlm_jax.runtime.sharding import DATA

_IMAGES = 5  # axes of images and of features, (groups, N, h, w, C)


class Placement:
    """Puts arrays where a step wants them: groups over `member`, a batch's samples over `data`.

    Attributes:
        mesh: of several devices; None: all is on the one.
    """

    def __init__(self, mesh: Mesh | None):
        """Places on a mesh, or on the default device."""
        self.mesh = mesh

    @property
    def devices(self) -> int:
        """Along the axis `member`."""
        return self.mesh.shape[MEMBER] if self.mesh else 1

    @property
    def lanes(self) -> int:
        """Along the axis `data`."""
        return self.mesh.shape[DATA] if self.mesh else 1

    def groups(self, tree: Any) -> Any:
        """Puts leaves (G, …); what has no axis of samples is on every device of a row."""
        return self._put(tree, lambda _: PartitionSpec(MEMBER))

    def batch(self, tree: Any) -> Any:
        """Puts images and features (G, N, h, w, C) and the small arrays beside them (G, …)."""

        def place(leaf) -> PartitionSpec:
            split = np.ndim(leaf) == _IMAGES
            return PartitionSpec(MEMBER, DATA) if split else PartitionSpec(MEMBER)

        return self._put(tree, place)

    def everywhere(self, tree: Any) -> Any:
        """Puts what all have in common, such as the teacher."""
        return self._put(tree, lambda _: PartitionSpec())

    def _put(self, tree: Any, spec: Any) -> Any:
        mesh = self.mesh
        if mesh is None:
            return jax.device_put(tree)
        shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), tree)
        return jax.device_put(tree, shardings)


def stacked(parts: Sequence[Any]) -> Any:
    """Trees of host arrays as one with a leading axis."""
    if len(parts) == 1:  # no copy
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], parts[0])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
