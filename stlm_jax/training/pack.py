"""Groups of trainings that make their steps together: their data, their checkpoints, their ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stlm_jax.data import dataset, depth
from stlm_jax.data.cache import GIB, ImageCache
from stlm_jax.data.loader import TrainLoader
from stlm_jax.inference import calibration
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.progress import note
from stlm_jax.training.divergence import NotFiniteError, record
from stlm_jax.training.ensemble_step import PRODUCED
from stlm_jax.training.log import Place, TrainingLog
from stlm_jax.training.members import Group, Member
from stlm_jax.training.placement import Placement, stacked
from stlm_jax.training.saving import save
from stlm_jax.training.state import TrainState, category_key, create_train_state
from stlm_jax.training.targets import Features, Targets


class Pack:
    """The groups, and which of their members go on.

    Attributes:
        groups: of the trainings.
        members: by place.
        active: places of those that go on.
        mask: (G, M) bool, the same on the devices.
        ends: steps at which a member ends.
        stopped: labels of members that diverged.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        groups: Sequence[Group],
        shape: tuple[int, int],
        placement: Placement,
        targets: Targets,
    ):
        """Reads the groups' images and opens their streams of batches.

        Args:
            config: what all runs have in common.
            groups: all at the same step.
            shape: of the step's arrays, (groups, members of a group), no less than there are.
            placement: where they are.
            targets: of the run.
        """
        self.groups, self._shape, self._placement = list(groups), shape, placement
        self.members: dict[Place, Member] = {
            (i, j): member
            for i, group in enumerate(groups)
            for j, member in enumerate(group.members)
        }
        self.ends = {member.total for member in self.members.values()}
        self.stopped: list[str] = []
        self._prepare_folders(config)
        self._features: list[Features] = []
        self._loaders: list[TrainLoader] = []
        self._open(config, targets)
        self._batches: list[Any] = [None] * len(groups)
        self.active: set[Place] = set()
        self._activate(set(self.members))

    @property
    def label(self) -> str:
        """What messages call them."""
        first, *others = self.members.values()
        return f"{first.label} and {len(others)} more" if others else first.label

    @property
    def total(self) -> int:
        """Steps of the longest."""
        return max(self.ends)

    def _prepare_folders(self, config: ml_collections.ConfigDict) -> None:
        for group in self.groups:
            for member in group.members:
                if member.restored is None:
                    found = dataset.find_depth(config, member.category, group.records)
                    depth.store(member.folder, found)
                # The images are there, the weights are about to change.
                calibration.forget(member.folder)

    def _open(self, config: ml_collections.ConfigDict, targets: Targets) -> None:
        categories = {group.lead.category for group in self.groups}
        shares = {
            "data": config.data.cache_gib / len(categories),
            "teacher": config.teacher.cache_gib / len(self.groups),
        }
        images: dict[str, ImageCache] = {}
        for group in self.groups:
            lead = group.lead
            own = lead.run.config.copy_and_resolve_references()
            own.teacher.cache_gib = shares["teacher"]
            if lead.category not in images:
                resolved = depth.resolved(own, lead.folder)
                images[lead.category] = _images(group, resolved, shares["data"])
            features = targets.of_category(own, lead.category, images[lead.category])
            loader = TrainLoader(
                images[lead.category],
                config.train.batch_size,
                own.seed,
                companion=features.companion,
            )
            if lead.restored is not None:
                loader.set_state(lead.restored.data)
                for member in group.members:
                    note(f"{member.label}: going on from step {lead.done}")
            self._features.append(features)
            self._loaders.append(loader)

    def first_states(self, model: Stlm) -> TrainState:
        """The members' states, leaves (G, M, …) on the devices; empty places repeat one."""
        rows = []
        for group in self.groups:
            row = [_first_state(member, model) for member in group.members]
            rows.append(stacked(row + [row[0]] * (self._shape[1] - len(row))))
        states = stacked(rows + [rows[0]] * (self._shape[0] - len(rows)))
        placed = self._placement.groups(states)
        # Copies: a donated buffer must belong to nobody else, and `device_put` may alias. With
        # the dtype given no leaf stays weakly typed, which would compile the step twice.
        return jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), placed)

    def draw(self, textures: jax.Array) -> tuple[dict[int, Any], dict[str, Any]]:
        """The next batch of every group that goes on: as drawn, and as the step takes all."""
        drawn = {}
        for number in sorted({place[0] for place in self.active}):
            batch = next(self._loaders[number])
            drawn[number] = batch
            self._batches[number] = {
                "image": batch["image"],
                **self._features[number].parts(batch),
            }
        known = next(batch for batch in self._batches if batch is not None)
        batches = [known if batch is None else batch for batch in self._batches]
        batches += [known] * (self._shape[0] - len(batches))
        return drawn, {**self._placement.batch(stacked(batches)), "textures": textures}

    def take(self, drawn: Mapping[int, Any], metrics: dict[str, Any]) -> None:
        """Takes what is no metric out of what a step gave."""
        produced = metrics.pop(PRODUCED, None)
        if produced is not None:
            for number, batch in drawn.items():
                self._features[number].take(batch, _part(produced, number))

    def save(self, step: int, states: TrainState) -> dict[Place, NotFiniteError]:
        """Writes the checkpoints of those that go on, but of none whose weights are not finite."""
        host = jax.device_get(states)
        failed = {}
        for place in sorted(self.active):
            member = self.members[place]
            state = jax.tree.map(lambda x, place=place: x[place], host)
            assert member.checkpoints
            try:
                save(member.checkpoints, step, state, self._loaders[place[0]])
            except NotFiniteError as error:
                failed[place] = error
        return failed

    def check(self) -> None:
        """Raises what the last save of a member failed of, if it has."""
        for place in self.active:
            checkpoints = self.members[place].checkpoints
            assert checkpoints
            checkpoints.check()

    def wait(self, places: set[Place]) -> None:
        """Returns when the last saves of members are on disk."""
        for place in sorted(places):
            checkpoints = self.members[place].checkpoints
            assert checkpoints
            checkpoints.wait()

    def finish(self, step: int, log: TrainingLog) -> None:
        """Ends the members whose last step it was."""
        ended = {place for place in self.active if self.members[place].total <= step}
        if ended:
            self.wait(ended)
            self._leave(ended, log)

    def drop(self, failed: Mapping[Place, NotFiniteError], log: TrainingLog) -> None:
        """Stops members that diverged, while others go on; raises it where there is no other."""
        failed = {place: error for place, error in failed.items() if place in self.active}
        if failed and len(self.members) == 1:
            raise next(iter(failed.values()))
        for place, error in failed.items():
            member = self.members[place]
            record(member, error)
            self.stopped.append(member.label)
        if failed:
            self._leave(set(failed), log)

    def _leave(self, places: set[Place], log: TrainingLog) -> None:
        for place in sorted(places):
            log.end(place)
        self._activate(self.active - places)

    def _activate(self, places: set[Place]) -> None:
        self.active = places
        mask = np.zeros(self._shape, bool)
        for place in places:
            mask[place] = True
        self.mask = self._placement.groups(mask)


def _first_state(member: Member, model: Stlm) -> TrainState:
    """A member's first state, or the one to go on from; host arrays."""
    restored = member.restored
    if restored is not None:
        return TrainState(**restored.student, **restored.training)
    config, category = member.run.config, member.category
    key = category_key(config.seed, category)
    return jax.device_get(create_train_state(config, model, key, category, member.total))


def _images(group: Group, config: ml_collections.ConfigDict, budget: float) -> ImageCache:
    """A category's images, decoded as far as `budget` GiB go."""
    category = group.lead.category
    paths = [record.image for record in group.records]
    images = ImageCache(paths, dataset.image_reader(config), budget * GIB, f"read {category}")
    if images.kept < len(images):
        note(
            f"{category}: config.data.cache_gib={config.data.cache_gib:g} holds {images.kept} of "
            f"{len(images)} images, the others are decoded on the fly"
        )
    return images


@jax.jit
def _parts(tree: Any) -> list[Any]:
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]


def _part(tree: Any, number: int) -> Any:
    return _parts(tree)[number]
