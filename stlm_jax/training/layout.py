"""Over how many devices trainings are spread, and how many of them a program takes."""

from collections.abc import Sequence

import ml_collections

from stlm_jax.training.members import Group


def sides_of(
    config: ml_collections.ConfigDict, groups: int, devices: int, processes: int = 1
) -> tuple[int, int]:
    """`config.mesh` of so many devices, for `make_mesh`: along its axes `member` and `data`.

    Args:
        config: of the run.
        groups: that there are to train.
        devices: of all processes.
        processes: that they belong to; where there are several, each has its own at work.
    """
    member, data = config.mesh.member, config.mesh.data
    if member == -1 and data != -1 and processes == 1:  # no more devices than there is work for
        member = max(1, min(devices // data, groups))
    return member, data


def shape_of(packs: Sequence[Sequence[Group]], rows: int) -> tuple[int, int]:
    """Groups, and members of a group, of a program that takes each pack on so many rows."""
    groups = max(map(len, packs))
    members = max(len(group.members) for pack in packs for group in pack)
    return -(-groups // rows) * rows, members
