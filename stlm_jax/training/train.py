"""Training of every category of every run: what is missing, in packs, one after the other."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_collections

from stlm_jax.config.rules import MOST
from stlm_jax.data import dataset
from stlm_jax.data.records import Record
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.mesh import make_mesh
from stlm_jax.runtime.progress import note
from stlm_jax.training.divergence import NotFiniteError, diverged, told
from stlm_jax.training.members import Member, Run, groups_of, packs_of, runs_of
from stlm_jax.training.placement import Placement
from stlm_jax.training.state import TrainState, abstract_train_state
from stlm_jax.training.trainer import Trainer
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.workdir import CHECKPOINTS, DATA_CHECK, LOCK, check_same_run, write_run


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
    if jax.process_count() > 1:
        raise UserError(
            f"training in {jax.process_count()} processes is not built yet, each would train a "
            "student of its own: start one (evaluation may run in several)"
        )
    runs = runs_of(config, workdir)
    folders = {workdir: config} | {run.workdir: run.config for run in runs}

    def check_all() -> None:
        for folder, its_config in folders.items():
            check_same_run(folder, its_config)

    check_all()
    dataset.prepare(config)
    checked = dataset.check(config, known=workdir / DATA_CHECK)
    splits = {name: dataset.split_of(config, name, "train") for name in config.data.categories}
    totals = {name: total_steps(config, name, len(split)) for name, split in splits.items()}

    def settle() -> None:
        for folder, its_config in folders.items():
            write_run(folder, its_config, command)
            checked.store(folder / DATA_CHECK)

    with only_here(workdir / LOCK):
        check_all()  # of a training that has ended since
        return _train_all(config, runs, splits, totals, settle)


def _train_all(
    config: ml_collections.ConfigDict,
    runs: Sequence[Run],
    splits: dict[str, list[Record]],
    totals: dict[str, int],
    settle: Callable[[], None],
) -> list[str]:
    template = abstract_train_state(config, build_stlm(config))
    names = [(run, category) for category in splits for run in runs]
    placement, size = _placement(config, len({(c, run.config.seed) for run, c in names}))
    trainer: Trainer | None = None
    stopped: list[str] = []
    with contextlib.ExitStack() as opened:
        # Of a run alone each category's folder is opened when its turn comes, as a training of
        # many would hold many.
        together = len(runs) > 1 or size > 1
        for part in [names] if together else [[name] for name in names]:
            members = [_open(run, category, totals[category], opened) for run, category in part]
            waiting = [member for member in members if not _finished(member, template)]
            _align(waiting, template)
            groups = groups_of(waiting, lambda member: splits[member.category])
            packs = packs_of(groups, size)
            if packs and trainer is None:
                shape = max(map(len, packs)), max(len(group.members) for group in groups)
                shape = -(-shape[0] // placement.devices) * placement.devices, shape[1]
                trainer = _trainer(config, template, placement, shape)
            settle()  # now that nothing is missing, no sooner
            settle = _settled
            for member in members:
                if member not in waiting:
                    _say_finished(member)
                    stopped += [member.label] if diverged(member) else []
            for pack in packs:
                assert trainer
                try:
                    stopped += trainer.fit(pack)
                except NotFiniteError as error:
                    (member,) = pack[0].members
                    raise UserError(
                        f"{member.label}: {told(member, error)} in another --workdir"
                    ) from error
            opened.close()
    return stopped


def _settled() -> None:
    pass


def _placement(config: ml_collections.ConfigDict, groups: int) -> tuple[Placement, int]:
    """Where so many groups are trained, and how many at a time."""
    sides = config.mesh
    data = sides.data
    count = len(jax.devices())
    member = sides.member
    if member == -1 and data != -1:  # no more devices than there is work for
        member = max(1, min(count // data, groups))
    mesh = make_mesh(member, data)
    placement = Placement(mesh if mesh.size > 1 else None)
    return placement, placement.devices * config.ensemble.groups


def _trainer(config, template: TrainState, placement: Placement, shape: tuple[int, int]) -> Trainer:
    if placement.mesh is None and shape == (1, 1):
        return Trainer(config, template)
    return Trainer(config, template, placement, shape)


def _open(run: Run, category: str, total: int, opened: contextlib.ExitStack) -> Member:
    folder = run.workdir / category
    checkpoints = Checkpoints(folder / CHECKPOINTS, run.config.checkpoint.keep)
    opened.enter_context(checkpoints)
    return Member(run, category, folder, total, checkpoints)


def _finished(member: Member, template: TrainState) -> bool:
    """Whether a member is, once its newest checkpoint is restored."""
    if diverged(member):
        return True
    member.restored = member.checkpoints.restore(
        template.student(), template.training(), discard_damaged=True
    )
    if member.done > member.total:
        raise UserError(
            f"{member.folder / CHECKPOINTS}: trained for {member.done} steps, more than the "
            f"{member.total} asked for; raise config.train.steps or use another --workdir"
        )
    return member.done == member.total


def _say_finished(member: Member) -> None:
    if diverged(member):
        note(f"{member.label}: diverged before, stopped; delete {member.folder} to train it again")
    else:
        note(f"{member.label}: finished before, {member.done} steps")


def _align(members: Sequence[Member], template: TrainState) -> None:
    """Takes members that share samples back to a step that all of them have saved, if there is one.

    A run that was killed while it saved has a newer checkpoint of some than of others.
    """
    sharing: dict[tuple, list[Member]] = {}
    for member in members:
        sharing.setdefault(member.samples_key(), []).append(member)
    for group in sharing.values():
        common = set.intersection(*(set(member.checkpoints.steps()) for member in group))
        if len({member.done for member in group}) == 1 or not common:
            continue
        for member in group:
            if member.done > max(common):
                member.restored = member.checkpoints.restore(
                    template.student(),
                    template.training(),
                    discard_damaged=True,
                    at_most=max(common),
                )


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
