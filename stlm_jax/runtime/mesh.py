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
    return Mesh(chosen, (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2)
