"""Where the arrays of a run lie on a mesh."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"  # the axis of a mesh over which a batch is spread
FSDP = "fsdp"  # of config.teacher.sharding


def split_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """The longest axis that so many devices can share equally, the first of equals; or none."""
    fitting = [axis for axis, side in enumerate(shape) if side and side % parts == 0]
    return max(fitting, key=lambda axis: shape[axis]) if fitting else None


def spread_spec(shape: tuple[int, ...], axis_name: str, parts: int) -> PartitionSpec:
    """How an array is spread over the `parts` devices along a mesh's axis; as a whole if it must.

    A scalar and what no axis of can be split is on every device: biases of odd lengths, a few KiB.
    """
    axis = split_axis(shape, parts)
    if parts == 1 or axis is None:
        return PartitionSpec()
    return PartitionSpec(*(axis_name if i == axis else None for i in range(len(shape))))


def weight_shardings(tree: Any, mesh: Mesh, axis_name: str, sharding: str) -> Any:
    """Where weights that a step only reads lie.

    Args:
        tree: of arrays or `jax.ShapeDtypeStruct`.
        mesh: of the run.
        axis_name: the axis that a batch is spread over.
        sharding: of `config.teacher`: `replicated`, all on every device, or `fsdp`, a part on each;
            what a layer needs is then gathered where it is used, and given up again.

    Returns:
        A tree of `NamedSharding`, for `jax.device_put` or `jax.jit`.
    """
    parts = mesh.shape[axis_name] if sharding == FSDP else 1
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, spread_spec(leaf.shape, axis_name, parts)), tree
    )


def put_whole(tree: Any, shardings: Any) -> Any:
    """Puts what every process has in full on the devices, each part where it belongs.

    Args:
        tree: of host arrays, the same in all processes.
        shardings: a tree of them, or one for all leaves.
    """

    def put(leaf, sharding):
        leaf = np.asarray(jax.device_get(leaf))
        with asked_for():
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: put(leaf, shardings), tree)
    return jax.tree.map(put, tree, shardings)


def put_rows(tree: Any, mesh: Mesh, axis_name: str) -> Any:
    """Makes whole batches of what each process has of them: its rows, in the processes' order.

    Args:
        tree: of host arrays (N / processes, …).
        mesh: of the run; along `axis_name` a process's devices follow one another.
        axis_name: over which rows are spread.

    Returns:
        A tree of arrays (N, …), no row of which has left its process.
    """
    sharding = NamedSharding(mesh, PartitionSpec(axis_name))
    with asked_for():
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
        )


def share_of_rows(mesh: Mesh, process: int) -> tuple[int, int]:
    """Into how many shares processes cut a batch, and which of them, from 0, a process has.

    Processes that are side by side along another axis of the mesh than `DATA` have the same one.
    """
    places = np.unique(_places(mesh, process)[:, mesh.axis_names.index(DATA)])
    return mesh.shape[DATA] // len(places), int(places[0]) // len(places)


def rows_of_mesh(mesh: Mesh, process: int) -> list[int]:
    """The rows of a mesh, (rows, `DATA`), that a process has devices in, ascending."""
    return sorted({int(row) for row, _ in _places(mesh, process)})


def _places(mesh: Mesh, process: int) -> np.ndarray:
    """Where the devices of a process are in a mesh, (devices, axes)."""
    own = [device.process_index == process for device in mesh.devices.flat]
    return np.argwhere(np.reshape(own, mesh.devices.shape))


def asked_for():
    """Lets transfers pass jax's guard, which knows `jax.device_put` alone as one that is wanted."""
    return jax.transfer_guard_host_to_device("allow")
