"""The one training loop: what several trainings share, and their steps, saves and records."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from stlm_jax.data import dataset
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.agreement import Vote, agreed, together
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.runtime.convolutions import order_convolutions
from stlm_jax.runtime.interrupt import Interrupted, StopRequest
from stlm_jax.runtime.profiler import Profiler
from stlm_jax.runtime.progress import note
from stlm_jax.training import memory
from stlm_jax.training.ensemble_step import ensemble_step, of_one
from stlm_jax.training.log import Place, TrainingLog
from stlm_jax.training.members import Group
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.pack import Pack, prepare_folders
from stlm_jax.training.placement import Placement, stacked
from stlm_jax.training.previews import Previews
from stlm_jax.training.saving import SaveTimes
from stlm_jax.training.shares import check_shares
from stlm_jax.training.state import TrainState, parameter_table
from stlm_jax.training.step import train_step
from stlm_jax.training.targets import Targets
from stlm_jax.workdir import PROFILE


class Trainer:
    """What all trainings share (compiled step, teacher, textures), and the loop."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        template: TrainState,
        placement: Placement | None = None,
        shape: tuple[int, int] = (1, 1),
    ):
        """Loads the teacher onto the devices.

        Args:
            config: of the run, or what an ensemble's runs have in common.
            template: a training's state, or its shapes.
            placement: where trainings are; None: all on the default device.
            shape: groups, and members of a group, of the largest pack.
        """
        self.placement, self.shape = placement or Placement(None), shape
        self.config, self.model = config, build_stlm(config, self.placement.lanes)
        self.targets = Targets(config, self.placement.mesh)
        optimizer = tuple(sorted(config.optimizer.items()))
        check_shares(config, self.placement.lanes)
        step = bound_step(train_step, self.model, self.targets.teacher, optimizer,
                          config.train.accumulate, self.placement.mesh, shape,
                          config.ensemble.inner)  # fmt: skip
        self.step = jit(step, donate_argnums=0)  # the states alone: the others are used again
        memory.check(config, self.step, template, self.targets, shape)
        self._banks: dict[int, np.ndarray] = {}
        self._textures: tuple[list[int], Any] = [], None  # and the seeds they are of
        self.targets.check(config, self._bank(self._texture_seed(config)))
        self.previews = Previews(config, self.model)
        note(parameter_table(template.params))

    def fit(self, groups: Sequence[Group]) -> list[str]:
        """Trains groups, all at the same step, each to its end.

        Returns:
            The labels of members that diverged and were stopped; a training that is alone raises
            NotFiniteError instead.
        """
        config = self.config
        together(lambda: prepare_folders(config, groups, self.placement, self.shape))
        pack = together(lambda: Pack(config, groups, self.shape, self.placement, self.targets))
        states, done = pack.first_states(self.model), groups[0].lead.done
        textures, variables = self._textures_of(groups), self.targets.variables
        for member in pack.members.values() if done else ():
            note(f"{member.label}: going on from step {done}")
        start, times, lead, vote = done, SaveTimes(config.checkpoint), groups[0].lead, Vote()
        with (
            TrainingLog(pack.members, start) as log,
            StopRequest() as stop,
            Profiler(lead.folder / PROFILE, config.profile.start, config.profile.steps) as profiler,
            jax.transfer_guard("disallow"),  # a transfer that nobody asked for stalls every step
        ):
            while True:
                # At the top of a pass the states have seen `done` batches and the loaders have
                # given `done`; only here may both be saved. A batch drawn before the save would be
                # lost on resuming, as the loader's position would be past it.
                stopping = vote.any(stop.requested or pack.failed())
                if stopping:
                    pack.wait(pack.active)  # raises what has failed
                if done > start and (times.due(done) or done in pack.ends or stopping):
                    pack.drop(log.check(done, pack.active), log)
                    with log.pause(done):
                        pack.drop(pack.save(done, states), log)
                    times.saved()
                pack.finish(done, log)
                if not pack.active:
                    return pack.stopped
                if stopping:
                    pack.wait(pack.active)
                    raise Interrupted(
                        f"{pack.label}: stopped at step {done} of {pack.total}, saved; run the "
                        "same command again to go on from there"
                    )
                drawn, batch = pack.draw(textures)
                if done == start:  # compiling is no part of the rate
                    with log.pause(done):
                        self._compile(pack, done, (states, pack.mask, variables, batch), stop)
                begin = time.monotonic()
                states, metrics = profiler.step(
                    done, self.step, states, pack.mask, variables, batch
                )
                pack.take(drawn, metrics)
                if done == start + 1:  # the first begins with loading the program
                    jax.block_until_ready(metrics)
                    log.announce(time.monotonic() - begin)
                done += 1
                # Reading a number waits for its step, so those of the last logged one are read
                # while the device works on this one.
                pack.drop(log.write(done), log)
                shown = done % config.log.every_steps == 0 or done in pack.ends
                log.put(done, metrics, shown, pack.active)
                if self.previews.due(done):
                    with log.pause(done):
                        self._preview(log, done, states, batch, pack.active, stop)

    def _compile(
        self, pack: Pack, done: int, arguments: tuple[Any, ...], stop: StopRequest
    ) -> None:
        """Compiles the step, if it is not; a signal ends that."""

        def stopped() -> bool:
            try:
                compile_apart(self.step, *arguments, stop=lambda: stop.requested)
            except Interrupted:
                return True
            return False

        if any(agreed(stopped)):
            raise Interrupted(
                f"{pack.label}: stopped at step {done} while compiling, nothing is lost; run the "
                "same command again to go on from there"
            )

    def _preview(
        self,
        log: TrainingLog,
        done: int,
        states: TrainState,
        batch: Any,
        active: set[Place],
        stop: StopRequest,
    ) -> None:
        for place in sorted(active):
            writer = log.writers[place]
            self.previews.write(writer, done, states, batch, place, lambda: stop.requested)

    def _texture_seed(self, config: ml_collections.ConfigDict) -> int:
        given = self.targets.texture_seed
        return config.seed if given is None else given

    def _textures_of(self, groups: Sequence[Group]) -> Any:
        """The banks of the groups' seeds, (G, T, H, W, 3) uint8, on the devices.

        G is the step's; places without a group repeat one.
        """
        seeds = [self._texture_seed(group.lead.run.config) for group in groups]
        seeds += seeds[:1] * (self.shape[0] - len(seeds))
        own = self.placement.own(self.shape[0])
        seeds = seeds[own.start : own.stop]
        if self._textures[0] != seeds:
            self._textures = [], None  # room for the others
            banks = stacked([self._bank(seed) for seed in seeds])
            self._textures = seeds, self.placement.groups(banks)
            if not self.config.ensemble.seeds:  # there is no other seed to keep them for
                self._banks.clear()
        return self._textures[1]

    def _bank(self, seed: int) -> np.ndarray:
        if seed not in self._banks:
            data = self.config.data
            self._banks[seed] = read_texture_bank(
                data.texture_root,
                data.texture_count,
                self.config.image_size,
                seed,
                dataset.skips(self.config),
            )
        return self._banks[seed]


@functools.lru_cache(maxsize=2)  # of one function jax keeps what it has traced and compiled
def bound_step(step, model, teacher, optimizer, accumulate, mesh, shape, inner):
    """A step of packs of so many groups and members, its first arguments bound."""
    settings = ml_collections.ConfigDict(dict(optimizer))
    bound = model, teacher, make_optimizer(settings)
    if shape != (1, 1) or mesh is not None or accumulate > 1:  # gradients in loops or branches
        order_convolutions()
    if shape == (1, 1) and mesh is None:
        return functools.partial(of_one, functools.partial(step, *bound, accumulate=accumulate))
    placement = Placement(mesh)
    return functools.partial(
        ensemble_step,
        *bound,
        mesh=mesh,
        accumulate=accumulate,
        lanes=placement.lanes,
        inner=inner,
    )
