"""Which trainings a command consists of, and which of them are trained together."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import configurations, flatten, is_ensemble
from stlm_jax.data.records import Record
from stlm_jax.training.rotation import policy_of
from stlm_jax.weights.checkpoint import Checkpoints, Restored


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: the categories of a configuration, in a folder of their own.

    Attributes:
        name: of the run in its ensemble; empty where it is none.
        config: of the run alone.
        workdir: its folder.
    """

    name: str
    config: ml_collections.ConfigDict
    workdir: Path


def runs_of(config: ml_collections.ConfigDict, workdir: Path) -> list[Run]:
    """The runs of a configuration; those of an ensemble have folders in `workdir`."""
    if not is_ensemble(config):
        return [Run("", config, workdir)]
    return [Run(name, run, workdir / name) for name, run in configurations(config).items()]


@dataclasses.dataclass
class Member:
    """One training: a category of a run.

    Attributes:
        run: that it belongs to.
        category: its name.
        folder: its own, in the run's.
        total: steps that it is to have.
        done: steps that it has a checkpoint of; 0: none.
        checkpoints: its own, while they are open.
        restored: that checkpoint, while it is needed.
    """

    run: Run
    category: str
    folder: Path
    total: int
    done: int = 0
    checkpoints: Checkpoints | None = None
    restored: Restored | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.category} of {self.run.name}" if self.run.name else self.category

    def samples_key(self) -> tuple[Any, ...]:
        """What samples depend on: members with the same see the same ones."""
        config = self.run.config
        generator = sorted(flatten(config.pseudo).items())
        policy = policy_of(config.data.rotation, self.category)
        return self.category, config.seed, policy, tuple(generator)


@dataclasses.dataclass
class Group:
    """Members that see the same samples.

    Attributes:
        members: of one category, one seed and one generator, at the same step.
        records: the category's images to train on.
    """

    members: list[Member]
    records: list[Record]

    @property
    def lead(self) -> Member:
        """The one that stands for all in what they have in common."""
        return self.members[0]


def groups_of(
    members: Iterable[Member], records_of: Callable[[Member], list[Record]]
) -> list[Group]:
    """Members by what they see and by the step that they have reached, the longest first.

    Args:
        members: at their checkpoints.
        records_of: gives a member's images.
    """
    found: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        found.setdefault((member.done, *member.samples_key()), []).append(member)
    groups = [Group(together, records_of(together[0])) for together in found.values()]
    return sorted(groups, key=lambda group: (group.lead.done, -group.lead.total))


def packs_of(groups: Sequence[Group], size: int) -> list[list[Group]]:
    """Groups that are trained in one program: up to `size` of those at the same step."""
    packs: list[list[Group]] = []
    for group in groups:
        last = packs[-1] if packs else []
        if last and len(last) < size and last[0].lead.done == group.lead.done:
            last.append(group)
        else:
            packs.append([group])
    return packs
