"""Groups of trainings that make their steps together: their data, their checkpoints, their ends."""

from collections.abc import Iterator, Mapping, Sequence
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
from stlm_jax.runtime.agreement import agreed, together
from stlm_jax.runtime.progress import note
from stlm_jax.training.divergence import NotFiniteError, record
from stlm_jax.training.ensemble_step import PRODUCED
from stlm_jax.training.log import Place, TrainingLog
from stlm_jax.training.members import Group, Member
from stlm_jax.training.placement import Placement, stacked
from stlm_jax.training.saving import save
from stlm_jax.training.state import TrainState, category_key, create_train_state
from stlm_jax.training.targets import Features, Targets
from stlm_jax.weights.checkpoint import Checkpoints


class Pack:
    """The groups, and which of their members go on.

    Of several processes each has the data and the checkpoints of its own groups, and knows which
    members of all go on.

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
        self._own = placement.own(shape[0])
        self._samples = config.train.batch_size // placement.processes
        self._features: dict[int, Features] = {}
        self._loaders: dict[int, TrainLoader] = {}
        self._open(config, targets)
        self._idle = self._idle_batch(config, targets)
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

    def _open(self, config: ml_collections.ConfigDict, targets: Targets) -> None:
        own = own_groups(self.groups, self._placement, self._shape)
        categories = {group.lead.category for group in own.values()}
        shares = {
            "data": config.data.cache_gib / max(len(categories), 1),
            "teacher": config.teacher.cache_gib / max(len(own), 1),
        }
        images: dict[str, ImageCache] = {}
        for number, group in own.items():
            lead = group.lead
            its_config = lead.run.config.copy_and_resolve_references()
            its_config.teacher.cache_gib = shares["teacher"]
            if lead.category not in images:
                resolved = depth.resolved(its_config, lead.folder)
                images[lead.category] = _images(group, resolved, shares["data"])
            self._features[number] = targets.of_category(
                its_config, lead.category, images[lead.category], self._samples
            )
            self._loaders[number] = TrainLoader(
                images[lead.category],
                config.train.batch_size,
                its_config.seed,
                self._placement.processes,
                self._features[number].companion,
                self._placement.process,
            )
            if lead.restored is not None:
                self._loaders[number].set_state(lead.restored.data)

    def _idle_batch(self, config: ml_collections.ConfigDict, targets: Targets) -> dict[str, Any]:
        """What a place without a group that goes on is given; nobody looks at it."""
        side, samples = config.image_size, self._samples
        shapes = {
            "image": jax.ShapeDtypeStruct((samples, side, side, 3), np.uint8),
            **targets.abstract_parts(samples),
        }
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    def first_states(self, model: Stlm) -> TrainState:
        """The members' states, leaves (G, M, …) on the devices; empty places repeat one."""
        rows: list[Any] = []
        for number in self._own:
            if number >= len(self.groups):
                rows.append(rows[0] if rows else self._first_row(self.groups[0], model, new=True))
            else:
                rows.append(self._first_row(self.groups[number], model))
        placed = self._placement.groups(stacked(rows))
        # Copies: a donated buffer must belong to nobody else, and `device_put` may alias. With
        # the dtype given no leaf stays weakly typed, which would compile the step twice.
        return jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), placed)

    def _first_row(self, group: Group, model: Stlm, new: bool = False) -> TrainState:
        row = [_first_state(member, model, new) for member in group.members]
        return stacked(row + [row[0]] * (self._shape[1] - len(row)))

    def draw(self, textures: jax.Array) -> tuple[dict[int, Any], dict[str, Any]]:
        """The next batch of every group that goes on: as drawn, and as the step takes all."""
        drawn = {}
        batches = dict.fromkeys(self._own, self._idle)
        for number in sorted({place[0] for place in self.active} & self._loaders.keys()):
            batch = next(self._loaders[number])
            drawn[number] = batch
            batches[number] = {"image": batch["image"], **self._features[number].parts(batch)}
        placed = self._placement.batch(stacked(list(batches.values())))
        return drawn, {**placed, "textures": textures}

    def take(self, drawn: Mapping[int, Any], metrics: dict[str, Any]) -> None:
        """Takes what is no metric out of what a step gave."""
        produced = metrics.pop(PRODUCED, None)
        if produced is not None:
            for number, batch in drawn.items():
                self._features[number].take(batch, self._placement.rows(produced, number))

    def save(self, step: int, states: TrainState) -> dict[Place, NotFiniteError]:
        """Writes the checkpoints of those that go on, but of none whose weights are not finite.

        A member's is written by one process; which failed is known to all.
        """
        parts = agreed(lambda: self._save(step, states) if self._placement.leads else {})
        return {place: error for part in parts for place, error in part.items()}

    def _save(self, step: int, states: TrainState) -> dict[Place, NotFiniteError]:
        host = self._placement.host(states)
        failed = {}
        for place in sorted(self.active):
            group, number = place
            if group not in self._own:
                continue
            at = group - self._own.start, number
            state = jax.tree.map(lambda x, at=at: x[at], host)
            checkpoints = self.members[place].checkpoints
            assert checkpoints
            try:
                save(checkpoints, step, state, self._loaders[group])
            except NotFiniteError as error:
                failed[place] = error
        return failed

    def _open_ones(self, places: set[Place]) -> Iterator[Checkpoints]:
        for place in sorted(places):
            checkpoints = self.members[place].checkpoints
            if checkpoints:  # else they are another process's
                yield checkpoints

    def failed(self) -> bool:
        """Whether a last save has, here."""
        return any(checkpoints.failed() for checkpoints in self._open_ones(self.active))

    def wait(self, places: set[Place]) -> None:
        """Returns when the last saves of members are on disk, or raises what kept them from it."""

        def wait() -> None:
            for checkpoints in self._open_ones(places):
                checkpoints.wait()

        together(wait)

    def finish(self, step: int, log: TrainingLog) -> None:
        """Ends the members whose last step it was."""
        ended = {place for place in self.active if self.members[place].total <= step}
        if ended:
            self.wait(ended)
            self._leave(ended, log)

    def drop(self, failed: Mapping[Place, NotFiniteError], log: TrainingLog) -> None:
        """Stops members that diverged, while others go on; raises it where there is no other."""
        failed = {place: error for place, error in failed.items() if place in self.active}
        if failed:
            self.wait(set(failed))
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
        self.mask = self._placement.groups(mask[self._own.start : self._own.stop])


def own_groups(groups: Sequence[Group], placement: Placement, shape: Place) -> dict[int, Group]:
    """Those that this process has, by their numbers; `shape` is as `Pack` takes it."""
    there = range(len(groups))
    return {number: groups[number] for number in placement.own(shape[0]) if number in there}


def prepare_folders(
    config: ml_collections.ConfigDict, groups: Sequence[Group], placement: Placement, shape: Place
) -> None:
    """Has the members' folders say what their images are, and forget what no longer holds.

    Args:
        config: what all runs have in common.
        groups: that are about to be trained.
        placement: where.
        shape: as `Pack` takes it.
    """
    own = own_groups(groups, placement, shape) if placement.leads else {}
    for group in own.values():
        for member in group.members:
            if member.done == 0:
                found = dataset.find_depth(config, member.category, group.records)
                depth.store(member.folder, found)
            # The images are there, the weights are about to change.
            calibration.forget(member.folder)


def _first_state(member: Member, model: Stlm, new: bool) -> TrainState:
    """A member's first state, or the one to go on from unless it is to be `new`; host arrays."""
    restored = member.restored
    if restored is not None and not new:
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
