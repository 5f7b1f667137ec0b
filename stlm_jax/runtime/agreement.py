"""What the processes of a run decide together, at the same step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


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
        return before is not None and bool(before)


def _count(wanted: bool) -> jax.Array:
    split, program = _counting()
    own = np.full(jax.local_device_count(), wanted)
    return program(jax.make_array_from_process_local_data(split, own))


@functools.cache
def _counting():
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("devices",), ()))
    return split, jax.jit(jnp.any, out_shardings=whole)
