"""Where the arrays of a pack of trainings lie: leaves (groups, members of a group, …) on a mesh."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stlm_jax.runtime.mesh import MEMBER
from stlm_jax.runtime.sharding import DATA, asked_for, rows_of_mesh, share_of_rows

_OF_NO_SAMPLE = ("key", "rounded")  # of a batch's arrays, by name; all others have an axis N


class Rows(NamedTuple):
    """The samples of one group that this process's devices hold of an array.

    Attributes:
        pieces: (1, n, …) each, on one device, in the samples' order.
    """

    pieces: list[jax.Array]

    def read(self) -> np.ndarray:
        """Them all, (N, …), on the host; waits until they are computed."""
        return np.concatenate([piece[0] for piece in jax.device_get(self.pieces)])


class Placement:
    """Puts arrays where a step wants them: groups over `member`, a batch's samples over `data`.

    Of several processes each has the groups of the mesh's rows that its devices are in, and of
    their batches its share; arrays of the host are of these alone.

    Attributes:
        mesh: of several devices; None: all is on the one.
        processes: how many share the batches of a group.
        process: which of them this is, from 0.
    """

    def __init__(self, mesh: Mesh | None):
        """Places on a mesh, or on the default device."""
        self.mesh = mesh
        self.processes, self.process = 1, 0
        self._rows = [0]
        if mesh is not None:
            self.processes, self.process = share_of_rows(mesh, jax.process_index())
            self._rows = rows_of_mesh(mesh, jax.process_index())

    @property
    def devices(self) -> int:
        """Along the axis `member`."""
        return self.mesh.shape[MEMBER] if self.mesh else 1

    @property
    def lanes(self) -> int:
        """Along the axis `data`."""
        return self.mesh.shape[DATA] if self.mesh else 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what it and others hold of the same groups."""
        return self.process == 0

    def own(self, groups: int) -> range:
        """The numbers of this process's groups, of so many that a step is of."""
        each = groups // self.devices
        return range(self._rows[0] * each, (self._rows[-1] + 1) * each)

    def groups(self, tree: Any) -> Any:
        """Puts leaves (own groups, …); what has no axis of samples is on every device of a row."""
        return self._put(tree, lambda _: PartitionSpec(MEMBER))

    def batch(self, tree: Any) -> Any:
        """Puts a batch's parts, leaves (own groups, n, …) of this process's samples.

        What is not of samples, a store's key for one, is (own groups, …) and whole.
        """
        return self._put(tree, batch_spec)

    def _put(self, tree: Any, spec: Callable[[Any], PartitionSpec]) -> Any:
        mesh = self.mesh
        if mesh is None:
            return jax.device_put(tree)
        shardings = jax.tree_util.tree_map_with_path(
            lambda path, _: NamedSharding(mesh, spec(path)), tree
        )
        if not mesh.is_multi_process:
            return jax.device_put(tree, shardings)
        with asked_for():
            return jax.tree.map(_of_process, shardings, tree)

    def host(self, tree: Any) -> Any:
        """This process's groups of leaves (G, …), which are split over `member` alone."""
        if self.mesh is None or not self.mesh.is_multi_process:
            return jax.device_get(tree)
        pieces = jax.tree.map(_first_copies, tree)
        # All at once: every transfer begins before the first is waited for.
        return jax.tree.map(np.concatenate, jax.device_get(pieces), is_leaf=_is_list)

    def rows(self, tree: Any, group: int) -> Any:
        """This process's samples of a group, a `Rows` for each leaf (G, N, h, w, C)."""
        return jax.tree.map(lambda leaf: Rows(_pieces(leaf, group)), tree)


def batch_spec(path: Sequence[Any]) -> PartitionSpec:
    """How the part of a batch at a path, leaves (G, …), lies on a mesh."""
    whole = getattr(path[-1], "key", None) in _OF_NO_SAMPLE
    return PartitionSpec(MEMBER) if whole else PartitionSpec(MEMBER, DATA)


def _of_process(sharding: NamedSharding, leaf: Any) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))


def _is_list(leaf: Any) -> bool:
    return isinstance(leaf, list)


def _first_copies(leaf: jax.Array) -> list[jax.Array]:
    found = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return [found[start] for start in sorted(found)]


def _pieces(leaf: jax.Array, group: int) -> list[jax.Array]:
    found = {}
    for shard in leaf.addressable_shards:
        first, samples = shard.index[0].start or 0, shard.index[1].start or 0
        if first <= group < first + shard.data.shape[0]:
            found[samples] = _one_each(shard.data)[group - first]
    return [found[start] for start in sorted(found)]


def _one_each(array: jax.Array) -> Sequence[jax.Array]:
    return [array] if array.shape[0] == 1 else _split(array)


@jax.jit
def _split(array: jax.Array) -> list[jax.Array]:
    return [array[i : i + 1] for i in range(array.shape[0])]


def stacked(parts: Sequence[Any]) -> Any:
    """Trees of host arrays as one with a leading axis."""
    if len(parts) == 1:  # no copy
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], parts[0])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
