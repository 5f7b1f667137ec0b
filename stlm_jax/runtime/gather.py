"""Values of all processes of a run, brought together."""

import pickle
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")
_PIECE = 1 << 24  # bytes that a process sends at a time


def gather(value: T) -> list[T]:
    """The `value` of every process, in their order; all processes must call it.

    Args:
        value: anything that can be pickled.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental.multihost_utils import process_allgather

    # Arrays of bytes, since objects cannot be sent, and piece by piece: each host holds a piece of
    # every other one at once.
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    with jax.transfer_guard("allow"):  # in a loop that forbids what it does not ask for, too
        return _gathered(own, process_allgather)


def _gathered(own: np.ndarray, process_allgather: Any) -> list[Any]:
    lengths = process_allgather(np.array(len(own)))  # (processes,)
    received: list[list[np.ndarray]] = [[] for _ in lengths]
    for start in range(0, int(lengths.max()), _PIECE):
        piece = np.zeros(min(_PIECE, int(lengths.max()) - start), np.uint8)
        part = own[start : start + len(piece)]
        piece[: len(part)] = part
        for pieces, sent in zip(received, process_allgather(piece), strict=True):
            pieces.append(sent)
    return [
        pickle.loads(np.concatenate(pieces)[:length].tobytes())
        for pieces, length in zip(received, lengths, strict=True)
    ]
