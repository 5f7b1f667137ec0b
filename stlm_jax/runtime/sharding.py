"""Where the arrays of a run lie on a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
