"""Training of every category of every run: what is missing, in packs, one after the other."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_collections

from stlm_jax.config.rules import MOST
from stlm_jax.data import dataset
from stlm_jax.data.loader import shard
from stlm_jax.data.records import Record
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.agreement import agreed, by_first, together
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.mesh import make_mesh
from stlm_jax.runtime.progress import note
from stlm_jax.training.divergence import NotFiniteError, diverged, told
from stlm_jax.training.layout import shape_of, sides_of
from stlm_jax.training.members import Group, Member, Run, groups_of, packs_of, runs_of
from stlm_jax.training.pack import own_groups
from stlm_jax.training.placement import Placement
from stlm_jax.training.shares import warn_of_other_shares
from stlm_jax.training.state import TrainState, abstract_train_state
from stlm_jax.training.trainer import Trainer
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.workdir import (
    CHECKPOINTS,
    DATA_CHECK,
    LOCK,
    check_same_run,
    read_run,
    saved_steps,
    write_run,
)

_DEVICES = "batch_devices"  # in run.json: how many shared a batch


def train(config: ml_collections.ConfigDict, workdir: Path, command: tuple[str, ...]) -> list[str]:
    """Trains what is not finished of `config.data.categories`, of every run of the ensemble.

    SIGINT and SIGTERM raise Interrupted once the states are saved. One process at a time trains in
    a folder, others may read there.

    Args:
        config: of the run, or of the ensemble.
        workdir: its folder.
        command: the command line, for `run.json`.

    Returns:
        The names of trainings of an ensemble that diverged and were stopped, now or before; a run
        that is none ends with an error.
    """
    runs = runs_of(config, workdir)
    folders = {workdir: config} | {run.workdir: run.config for run in runs}

    def check_all() -> None:
        for folder, its_config in folders.items():
            check_same_run(folder, its_config)

    by_first(check_all)
    by_first(lambda: dataset.prepare(config))
    checked = by_first(lambda: dataset.check(config, known=workdir / DATA_CHECK))
    names = config.data.categories
    splits = together(lambda: {name: dataset.split_of(config, name, "train") for name in names})
    totals = {name: total_steps(config, name, len(split)) for name, split in splits.items()}

    def settle(devices: int) -> None:
        warn_of_other_shares(config, read_run(workdir).get(_DEVICES), devices)
        for folder, its_config in folders.items():
            write_run(folder, its_config, command, **{_DEVICES: devices})
            assert checked
            checked.store(folder / DATA_CHECK)

    with contextlib.ExitStack() as stack:
        by_first(lambda: stack.enter_context(only_here(workdir / LOCK)))
        by_first(check_all)  # of a training that has ended since
        return _train_all(config, runs, splits, totals, settle)


def _train_all(
    config: ml_collections.ConfigDict,
    runs: Sequence[Run],
    splits: dict[str, list[Record]],
    totals: dict[str, int],
    settle: Callable[[int], None],
) -> list[str]:
    template = abstract_train_state(config, build_stlm(config))
    members = [
        Member(run, category, run.workdir / category, totals[category])
        for category in splits
        for run in runs
    ]
    placement, size = _placement(config, len({member.samples_key()[:2] for member in members}))
    trainer: Trainer | None = None
    settled = False
    stopped: list[str] = []
    # The categories of a run alone one after the other, so that what is wrong with one is told
    # when its turn comes.
    at_once = len(runs) > 1 or size > 1
    for part in [members] if at_once else [[member] for member in members]:
        waiting = _unfinished(part, template)
        _align(waiting)
        packs = packs_of(groups_of(waiting, lambda member: splits[member.category]), size)
        if packs and trainer is None:
            trainer = together(functools.partial(_trainer, config, template, placement, packs))
        if not settled:  # now that nothing is missing, no sooner
            by_first(functools.partial(settle, placement.lanes))
            settled = True
        for member in part:
            if member not in waiting:
                stopped += _say_finished(member)
        for pack in packs:
            assert trainer
            stopped += _fit(trainer, pack, template)
    return stopped


def _fit(trainer: Trainer, pack: list[Group], template: TrainState) -> list[str]:
    """Trains a pack from its members' checkpoints, which are open meanwhile."""
    members = [member for group in pack for member in group.members]
    placement = trainer.placement
    own = own_groups(pack, placement, trainer.shape).values()
    with contextlib.ExitStack() as opened:

        def restore() -> None:
            for member in (member for group in own for member in group.members):
                member.checkpoints = _checkpoints(member, read_only=not placement.leads)
                opened.enter_context(member.checkpoints)
                if member.done:
                    member.restored = member.checkpoints.restore(
                        template.student(),
                        template.training(),
                        discard_damaged=placement.leads,
                        at_most=member.done,
                    )

        together(restore)
        try:
            return trainer.fit(pack)
        except NotFiniteError as error:
            (member,) = members
            raise UserError(
                f"{member.label}: {told(member, error)} in another --workdir"
            ) from error
        finally:
            for member in members:  # room for the next pack's
                member.restored = member.checkpoints = None


def _placement(config: ml_collections.ConfigDict, groups: int) -> tuple[Placement, int]:
    """Where so many groups are trained, and how many at a time."""
    sides = sides_of(config, groups, len(jax.devices()), jax.process_count())
    mesh = make_mesh(*sides)
    placement = Placement(mesh if mesh.size > 1 else None)
    return placement, placement.devices * config.ensemble.groups


def _trainer(
    config: ml_collections.ConfigDict,
    template: TrainState,
    placement: Placement,
    packs: Sequence[list[Group]],
) -> Trainer:
    shape = shape_of(packs, placement.devices)
    if placement.mesh is None and shape == (1, 1):
        return Trainer(config, template)
    return Trainer(config, template, placement, shape)


def _checkpoints(member: Member, read_only: bool = False) -> Checkpoints:
    folder, keep = member.folder / CHECKPOINTS, member.run.config.checkpoint.keep
    return Checkpoints(folder, keep, read_only)


def _unfinished(members: Sequence[Member], template: TrainState) -> list[Member]:
    """Those that are not finished, by their newest checkpoints that are whole, nor diverged.

    Of several processes each reads some.
    """
    numbers = range(len(members))
    own = shard(numbers, jax.process_index(), jax.process_count())
    found = agreed(lambda: {number: _progress(members[number], template) for number in own})
    known = {number: progress for part in found for number, progress in part.items()}
    waiting = []
    for number in numbers:
        members[number].done, over = known[number]
        if not over:
            waiting.append(members[number])
    return waiting


def _progress(member: Member, template: TrainState) -> tuple[int, bool]:
    """The step that a member has reached, and whether there is nothing left to do."""
    if diverged(member):
        return 0, True
    with _checkpoints(member) as checkpoints:
        restored = checkpoints.restore(
            template.student(), template.training(), discard_damaged=True
        )
    done = restored.step if restored else 0
    if done > member.total:
        raise UserError(
            f"{member.folder / CHECKPOINTS}: trained for {done} steps, more than the "
            f"{member.total} asked for; raise config.train.steps or use another --workdir"
        )
    return done, done == member.total


def _say_finished(member: Member) -> list[str]:
    """Says that there is nothing to do; a list of the member if it diverged."""
    if diverged(member):
        note(f"{member.label}: diverged before, stopped; delete {member.folder} to train it again")
        return [member.label]
    note(f"{member.label}: finished before, {member.done} steps")
    return []


def _align(members: Sequence[Member]) -> None:
    """Takes members that share samples back to a step that all of them have saved, if there is one.

    A run that was killed while it saved has a newer checkpoint of some than of others.
    """
    sharing: dict[tuple, list[Member]] = {}
    for member in members:
        sharing.setdefault(member.samples_key(), []).append(member)
    for group in sharing.values():
        if len({member.done for member in group}) > 1:
            # What the first process sees: another's file system may lag behind.
            common = agreed(functools.partial(_common_steps, group))[0]
            for member in group:
                member.done = max(common, default=member.done)


def _common_steps(members: Sequence[Member]) -> set[int]:
    return set.intersection(*(set(saved_steps(member.folder)) for member in members))


def total_steps(config: ml_collections.ConfigDict, category: str, images: int) -> int:
    """Steps of a category with so many good images; the last partial batch is dropped."""
    train = config.train
    steps = train.steps_of.get(category, train.steps)
    steps = steps or train.epochs * (images // train.batch_size)
    if steps > MOST:
        raise UserError(
            f"--config.train.epochs={train.epochs}: are {steps} steps of {category}, at most "
            f"{MOST} can be counted"
        )
    return steps
