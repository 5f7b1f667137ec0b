"""Training of every category, and the one training loop."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from stlm_jax.config.rules import MOST
from stlm_jax.data import dataset, depth
from stlm_jax.data.cache import GIB, ImageCache
from stlm_jax.data.loader import TrainLoader
from stlm_jax.data.records import Record
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.inference import calibration
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted, StopRequest
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.profiler import Profiler
from stlm_jax.runtime.progress import note
from stlm_jax.training import memory
from stlm_jax.training.log import NotFiniteError, TrainingLog
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.previews import Previews
from stlm_jax.training.saving import SaveTimes, save
from stlm_jax.training.state import (
    TrainState,
    abstract_train_state,
    category_key,
    create_train_state,
    parameter_table,
)
from stlm_jax.training.step import train_step
from stlm_jax.training.targets import Features, Targets
from stlm_jax.weights.checkpoint import Checkpoints, Restored
from stlm_jax.workdir import CHECKPOINTS, DATA_CHECK, LOCK, PROFILE, check_same_run, write_run


def train(config: ml_collections.ConfigDict, workdir: Path, command: tuple[str, ...]) -> None:
    """Trains what is not finished of `config.data.categories`.

    SIGINT and SIGTERM raise Interrupted once the state is saved. One process at a time trains in a
    folder, others may read there.

    Args:
        config: of the run.
        workdir: its folder.
        command: the command line, for `run.json`.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"training in {jax.process_count()} processes is not built yet, each would train a "
            "student of its own: start one (evaluation may run in several)"
        )
    check_same_run(workdir, config)
    dataset.prepare(config)
    checked = dataset.check(config, known=workdir / DATA_CHECK)
    splits = {name: dataset.split_of(config, name, "train") for name in config.data.categories}
    totals = {name: total_steps(config, name, len(split)) for name, split in splits.items()}

    def settle() -> None:
        write_run(workdir, config, command)
        checked.store(workdir / DATA_CHECK)

    with only_here(workdir / LOCK):
        check_same_run(workdir, config)  # of a training that has ended since
        _train_all(config, workdir, splits, totals, settle)


def _train_all(
    config: ml_collections.ConfigDict,
    workdir: Path,
    splits: dict[str, list[Record]],
    totals: dict[str, int],
    settle: Callable[[], None],
) -> None:
    template = abstract_train_state(config, build_stlm(config))
    trainer: Trainer | None = None
    settled = False
    for category, records in splits.items():
        folder = workdir / category
        with Checkpoints(folder / CHECKPOINTS, config.checkpoint.keep) as checkpoints:
            restored = checkpoints.restore(
                template.student(), template.training(), discard_damaged=True
            )
            done = restored.step if restored else 0
            if done > totals[category]:
                raise UserError(
                    f"{folder / CHECKPOINTS}: trained for {done} steps, more than the "
                    f"{totals[category]} asked for; raise config.train.steps or use another "
                    "--workdir"
                )
            finished = done == totals[category]
            if not finished:
                trainer = trainer or Trainer(config, template)
            if not settled:  # now that nothing is missing, no sooner
                settle()
                settled = True
            if finished:
                note(f"{category}: finished before, {done} steps")
                continue
            assert trainer
            try:
                trainer.fit(category, records, totals[category], folder, checkpoints, restored)
            except NotFiniteError as error:
                last = checkpoints.latest_step()
                good = (
                    "no checkpoint was saved" if last is None else f"the last good is step {last}"
                )
                raise UserError(
                    f"{category}: {error}, {good}; try a lower config.optimizer.learning_rate "
                    f"(now {config.optimizer.learning_rate:g}) in another --workdir"
                ) from error


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


class Trainer:
    """What all categories share (compiled step, teacher, textures), and the loop."""

    def __init__(self, config: ml_collections.ConfigDict, template: TrainState):
        """Loads the teacher and the textures onto the device; `template` has the states' shapes."""
        self.config, self.model = config, build_stlm(config)
        self.targets = Targets(config)
        optimizer = tuple(sorted(config.optimizer.items()))
        parts = config.train.accumulate
        if parts == config.train.batch_size > 1:
            note(
                f"warning: config.train.accumulate={parts} leaves batch normalisation one image at "
                "a time, from which the image pooling learns nothing: take less"
            )
        step = _bound_step(train_step, self.model, self.targets.teacher, optimizer, parts)
        self.step = jit(step, donate_argnums=0)  # the state alone: the others are used again
        memory.check(config, self.step, template, self.targets)
        data = config.data
        bank = read_texture_bank(
            data.texture_root,
            data.texture_count,
            config.image_size,
            self.targets.texture_seed,
            dataset.skips(config),
        )
        self.targets.check(config, bank)
        self.textures = jax.device_put(bank)
        self.previews = Previews(config, self.model)
        self._parameters_shown = False

    def fit(
        self,
        category: str,
        records: list[Record],
        total: int,
        folder: Path,
        checkpoints: Checkpoints,
        restored: Restored | None = None,
    ) -> None:
        """Trains one category from `restored` (or from the start) to step `total`."""
        config = self.config
        if restored is None:
            depth.store(folder, dataset.find_depth(config, category, records))
        images = self._images(category, records, depth.resolved(config, folder))
        features = self.targets.of_category(config, category, images)
        loader = self._loader(images, features)
        state, done = self._begin(category, total, loader, restored)
        calibration.forget(folder)  # the images are there, the weights are about to change
        start, times = done, SaveTimes(config.checkpoint)
        with (
            TrainingLog(category, total, start, folder) as log,
            StopRequest() as stop,
            Profiler(folder / PROFILE, config.profile.start, config.profile.steps) as profiler,
            jax.transfer_guard("disallow"),  # a transfer that nobody asked for stalls every step
        ):
            while True:
                # At the top of a pass the state has seen `done` batches and the loader has given
                # `done`; only here may both be saved. A batch drawn before the save would be lost
                # on resuming, as the loader's position would be past it.
                stopping = stop.requested
                checkpoints.check()
                if done > start and (times.due(done) or done == total or stopping):
                    log.check(done)
                    with log.pause(done):
                        save(checkpoints, done, state, loader)
                    times.saved()
                if done == total or stopping:
                    checkpoints.wait()
                if done == total:
                    break
                if stopping:
                    raise Interrupted(
                        f"{category}: stopped at step {done} of {total}, saved; run the same "
                        "command again to go on from there"
                    )
                drawn = next(loader)
                batch = {"image": drawn["image"], "textures": self.textures}
                batch |= features.parts(drawn)
                if done == start:  # compiling is no part of the rate
                    with log.pause(done):
                        self._compile(category, done, (state, batch), stop)
                begin = time.monotonic()
                state, metrics = profiler.step(
                    done, self.step, state, self.targets.variables, batch
                )
                features.take(drawn, metrics)
                if done == start + 1:  # the first begins with loading the program
                    jax.block_until_ready(metrics)
                    log.announce(time.monotonic() - begin)
                done += 1
                # Reading a number waits for its step, so those of the last logged one are read
                # while the device works on this one.
                log.write(done)
                shown = done % config.log.every_steps == 0 or done == total
                log.put(done, metrics, shown)
                if self.previews.due(done):
                    with log.pause(done):
                        self.previews.write(log.writer, done, state, batch, lambda: stop.requested)

    def _begin(
        self, category: str, total: int, loader: TrainLoader, restored: Restored | None
    ) -> tuple[TrainState, int]:
        """The first state, or the one to go on from, and how many steps it has done."""
        if restored is None:
            key, start = category_key(self.config.seed, category), 0
            state = create_train_state(self.config, self.model, key, category, total)
        else:
            state, start = TrainState(**restored.student, **restored.training), restored.step
            loader.set_state(restored.data)
            note(f"{category}: going on from step {start}")
        if not self._parameters_shown:
            note(parameter_table(state.params))
            self._parameters_shown = True
        # Copies: a donated buffer must belong to nobody else, and `device_put` may alias. With
        # the dtype given no leaf stays weakly typed, which would compile the step twice.
        return jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), state), start

    def _compile(
        self, category: str, done: int, arguments: tuple[TrainState, dict], stop: StopRequest
    ) -> None:
        """Compiles the step, if it is not; a signal ends that."""
        state, batch = arguments
        try:
            compile_apart(
                self.step, state, self.targets.variables, batch, stop=lambda: stop.requested
            )
        except Interrupted:
            raise Interrupted(
                f"{category}: stopped at step {done} while compiling, nothing is lost; run the "
                "same command again to go on from there"
            ) from None

    def _loader(self, images: ImageCache, features: Features) -> TrainLoader:
        """The stream of batches, which are put on the device ahead of time."""
        size, seed = self.config.train.batch_size, self.config.seed
        return TrainLoader(images, size, seed, jax.device_put, companion=features.companion)

    def _images(
        self, category: str, records: list[Record], config: ml_collections.ConfigDict
    ) -> ImageCache:
        """The category's images, decoded as far as `config.data.cache_gib` goes."""
        budget = config.data.cache_gib
        paths = [record.image for record in records]
        reader = dataset.image_reader(config)
        images = ImageCache(paths, reader, budget * GIB, f"read {category}")
        if images.kept < len(images):
            note(
                f"{category}: config.data.cache_gib={budget:g} holds {images.kept} of "
                f"{len(images)} images, the others are decoded on the fly"
            )
        return images


@functools.lru_cache(maxsize=2)  # of one function jax keeps what it has traced and compiled
def _bound_step(step, model, teacher, optimizer: tuple[tuple[str, Any], ...], accumulate: int):
    settings = ml_collections.ConfigDict(dict(optimizer))
    return functools.partial(step, model, teacher, make_optimizer(settings), accumulate=accumulate)
