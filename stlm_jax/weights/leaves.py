"""The arrays of a pytree by their paths: as a checkpoint holds them, and as its table has them."""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization, traverse_util

from stlm_jax.runtime.errors import UserError

SEPARATOR = "/"
_PIECE = 2**24  # bytes


def leaves_of(tree: Any) -> dict[str, Any]:
    """Path → array of a pytree; empty containers and None have no entry."""
    state = serialization.to_state_dict(tree)
    flat = traverse_util.flatten_dict(state, sep=SEPARATOR)
    return {
        k: v if hasattr(v, "shape") else np.asarray(v) for k, v in flat.items() if v is not None
    }


def host_copies(tree: Any) -> dict[str, np.ndarray]:
    """Path → copy in host memory, which stays as it is whatever becomes of the pytree's arrays.

    Of an array over several devices each part is fetched once, of copies only one.
    """
    flat = leaves_of(tree)
    # All at once: every transfer begins before the first is waited for.
    return {path: _own(flat[path], array) for path, array in jax.device_get(flat).items()}


def _own(leaf: Any, array: np.ndarray) -> np.ndarray:
    if isinstance(leaf, jax.Array) and all(d.platform != "cpu" for d in leaf.devices()):
        return array
    return np.array(array)  # else it may be the very memory of the device, which a step overwrites


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested dictionary of paths."""
    return traverse_util.unflatten_dict(flat, sep=SEPARATOR)


def flattened(tree: dict[str, Any]) -> dict[str, Any]:
    """The paths of a nested dictionary."""
    return traverse_util.flatten_dict(tree, sep=SEPARATOR)


def packed(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The bytes of all arrays, by path, end to end in pieces; `flat` is left empty.

    Array stores take their time for each array, and a training has thousands of small ones.
    """
    stream, start = np.empty(sum(array.nbytes for array in flat.values()), np.uint8), 0
    for path in sorted(flat):
        content = np.ascontiguousarray(flat.pop(path)).reshape(-1).view(np.uint8)
        stream[start : start + len(content)] = content
        start += len(content)
    return _pieces(stream)


def room_for(table: dict[str, list]) -> dict[str, np.ndarray]:
    """Pieces as `packed` gives them, for arrays of which a table has what `describe` says."""
    return _pieces(np.empty(sum(map(_size, table.values())), np.uint8))


def unpacked(pieces: dict[str, np.ndarray], table: dict[str, list]) -> dict[str, np.ndarray]:
    """The inverse of `packed`."""
    stream, start, flat = np.concatenate([pieces[str(n)] for n in range(len(pieces))]), 0, {}
    for path, described in sorted(table.items()):
        shape, dtype, _ = described
        end = start + _size(described)
        # A copy: in the stream an array may lie where no number of its type does.
        flat[path] = stream[start:end].copy().view(dtype).reshape(shape)
        start = end
    return flat


def _size(described: list) -> int:
    shape, dtype, _ = described
    return math.prod(shape) * np.dtype(dtype).itemsize


def _pieces(stream: np.ndarray) -> dict[str, np.ndarray]:
    starts = range(0, len(stream), _PIECE)
    return {str(n): stream[start : start + _PIECE] for n, start in enumerate(starts)}


def rebuild(template: Any, flat: dict[str, np.ndarray]) -> Any:
    """A pytree like `template` with the arrays of `flat`."""
    state = serialization.to_state_dict(template)
    slots = traverse_util.flatten_dict(state, sep=SEPARATOR, keep_empty_nodes=True)
    filled = {path: flat.get(path, slot) for path, slot in slots.items()}
    return serialization.from_state_dict(template, nested(filled))


def describe(array: np.ndarray) -> list:
    """[shape, dtype, CRC-32 of the bytes] as JSON values."""
    array = np.asarray(array)
    content = np.ascontiguousarray(array).view(np.uint8)
    return [list(array.shape), array.dtype.name, zlib.crc32(content.data)]


def require_same_model(
    checkpoint: Path, saved: dict[str, list], expected: Mapping[str, Any]
) -> None:
    """Has arrays of a checkpoint's table be those that a model needs, by path, shape and dtype."""
    for path in sorted(saved.keys() | expected.keys()):
        ours = theirs = "absent"
        if path in saved:
            shape, dtype, _ = saved[path]
            theirs = f"{dtype}{shape}"
        if path in expected:
            ours = f"{np.dtype(expected[path].dtype).name}{list(expected[path].shape)}"
        if ours != theirs:
            raise UserError(
                f"{checkpoint}: checkpoint of another model: {path} is {theirs} in the "
                f"checkpoint, {ours} in the configured model; use the configuration it was "
                "trained with, or another --workdir"
            )
