"""Which trainings of a configuration one program makes on so many devices, as training has it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from jax.sharding import Mesh

from stlm_jax.runtime.mesh import MEMBER, make_mesh
from stlm_jax.runtime.sharding import DATA
from stlm_jax.training.layout import shape_of, sides_of
from stlm_jax.training.members import Group, Member, groups_of, packs_of, runs_of
from stlm_jax.training.shares import check_shares


class Together(NamedTuple):
    """The trainings.

    Attributes:
        mesh: of the devices that take part, axes `member` and `data`.
        packs: of groups that one program trains; one pack after the other.
        shape: of the program's arrays: groups, and members of a group, of the largest pack.
    """

    mesh: Mesh
    packs: list[list[Group]]
    shape: tuple[int, int]

    @property
    def alone(self) -> bool:
        """Whether the program is of one training on one device."""
        return self.mesh.size == 1 and self.shape == (1, 1)

    @property
    def each(self) -> int:
        """Groups of a pack that a device trains one after the other."""
        return self.shape[0] // self.mesh.shape[MEMBER]

    def rows(self) -> Iterator[list[Group]]:
        """The groups of a device, of each device and pack."""
        for pack in self.packs:
            for first in range(0, len(pack), self.each):
                yield pack[first : first + self.each]

    def facts(self, steps: Mapping[str, int | None]) -> dict[str, Any]:
        """What hours follow from, see `launch.work.Work`, given the steps by category."""
        return {
            "packs": [[steps[group.lead.category] for group in pack] for pack in self.packs],
            "each": self.each,
            "sides": (self.mesh.shape[MEMBER], self.mesh.shape[DATA]),
            "runs": len({member.run.name for member in self.members(self.packs)}),
        }

    @staticmethod
    def members(packs: Sequence[Sequence[Group]]) -> list[Member]:
        """Those of packs."""
        return [member for pack in packs for group in pack for member in group.members]


def trained_together(
    config: ml_collections.ConfigDict,
    steps: Mapping[str, int | None],
    devices: Sequence[Any],
    count: int,
) -> Together:
    """What `training.train` would train in one program.

    Args:
        config: of the run, or of the ensemble.
        steps: by category.
        devices: to compile for.
        count: of the devices that the run is to have, of which some need not be there.
    """
    nowhere = Path()
    runs = runs_of(config, nowhere)
    members = [Member(run, name, nowhere, steps[name] or 0) for name in steps for run in runs]
    groups = len({member.samples_key()[:2] for member in members})
    processes = len({device.process_index for device in devices})
    mesh = make_mesh(*sides_of(config, groups, count, processes), devices)
    check_shares(config, mesh.shape[DATA])
    size = mesh.shape[MEMBER] * config.ensemble.groups
    parts = [members] if len(runs) > 1 or size > 1 else [[member] for member in members]
    packs = [pack for part in parts for pack in packs_of(groups_of(part, lambda member: []), size)]
    return Together(mesh, packs, shape_of(packs, mesh.shape[MEMBER]))
