"""What the processes of a run decide together, at the same step."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.gather import gather
from stlm_jax.runtime.sharding import put_rows

T = TypeVar("T")
_DEVICES = "devices"  # of all processes


def agreed(work: Callable[[], T]) -> list[T]:
    """What `work` gives in every process; what is wrong in one is raised in all.

    What it gives is sent, so it must be small and of the kind that can be pickled. `work` itself
    must agree on nothing, as another process may have failed before it got there.
    """
    results: list[T] = []
    refusals: list[UserError] = []
    try:
        results.append(work())
    except UserError as error:
        # Raised here alone it would leave the other processes waiting in `gather` for ever.
        refusals.append(error)
    parts = gather((results, refusals))
    for _, others in parts:
        for refusal in others:
            raise refusal
    return [result for own, _ in parts for result in own]


def together(work: Callable[[], T]) -> T:
    """What `work` gives in this process, which is not sent; what is wrong in one is raised in all.

    See `agreed`.
    """
    own: list[T] = []
    agreed(lambda: own.append(work()))
    return own[0]


def by_first(work: Callable[[], T]) -> T | None:
    """Has the first process work while the others wait; what it refuses is raised in all.

    Returns:
        What `work` gives, in the first; None in the others.
    """
    return together(lambda: work() if jax.process_index() == 0 else None)


class Vote:
    """Whether any process wants something, known to all of them at the same step.

    Asking does not wait for the devices: what is asked at one step is answered at the next, by
    which time they have counted the votes before they began that step.
    """

    def __init__(self) -> None:
        self._asked: jax.Array | None = None

    def any(self, wanted: bool) -> bool:
        """Whether any process wanted it when all of them last asked; alone, whether this one does.

        Args:
            wanted: by this process, now.
        """
        if jax.process_count() == 1:
            return wanted
        before, self._asked = self._asked, _count(wanted)
        return before is not None and bool(jax.device_get(before))


def _count(wanted: bool) -> jax.Array:
    mesh, program = _counting()
    return program(put_rows(np.full(jax.local_device_count(), wanted), mesh, _DEVICES))


@functools.cache
def _counting():
    mesh = Mesh(np.array(jax.devices()), (_DEVICES,))
    return mesh, jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
