"""The devices of a run, by what is spread over them."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.sharding import DATA

MEMBER = "member"  # the axis of a mesh over which trainings are spread, `DATA` that of a batch


def make_mesh(member: int, data: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of axes `member` and `data`.

    Args:
        member: `config.mesh.member`: devices along that axis; -1: what is left of them.
        data: likewise `config.mesh.data`.
        devices: of all processes; None: all that there are.
    """
    devices = jax.devices() if devices is None else devices
    sides, count = [member, data], len(devices)
    told = f"config.mesh.member={member}, config.mesh.data={data}"
    if sides == [-1, -1]:
        raise UserError(f"{told}: only one of them can be what is left: give the other")
    if -1 in sides:
        given = max(sides)
        if count % given:
            raise UserError(f"{told}: {count} devices cannot be divided by {given}")
        sides[sides.index(-1)] = count // given
    if sides[0] * sides[1] > count:
        raise UserError(f"{told}: wants {sides[0] * sides[1]} devices, there are {count}")
    chosen = np.asarray(devices[: sides[0] * sides[1]]).reshape(sides)
    _require_blocks(chosen, len({device.process_index for device in devices}), told)
    return Mesh(chosen, (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2)


def _require_blocks(mesh: np.ndarray, processes: int, told: str) -> None:
    """Refuses a mesh, (member, data), in which a process's devices are no block of their own."""
    if processes == 1:
        return
    owners = np.vectorize(lambda device: device.process_index)(mesh)
    found, counts = np.unique(owners, return_counts=True)
    rows = [np.flatnonzero((owners == owner).any(1)) for owner in found]
    columns = [np.flatnonzero((owners == owner).any(0)) for owner in found]
    blocks = [len(r) * len(c) for r, c in zip(rows, columns, strict=True)]
    if len(found) < processes or (counts != blocks).any() or len(set(counts)) > 1:
        raise UserError(
            f"{told}: {processes} processes cannot share that: take all devices, with "
            "config.mesh.data a divisor or a multiple of those that a process has"
        )
