"""Training of every category, and the one training loop."""

import math
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stlm_jax import calibration, dataset, run_info
from stlm_jax.checkpoint import Checkpoints, Restored
from stlm_jax.compilation import jit
from stlm_jax.data.cache import GIB, ImageCache
from stlm_jax.data.pipeline import TrainLoader, shard
from stlm_jax.data.records import Record
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.errors import UserError
from stlm_jax.evaluate import evaluate
from stlm_jax.interrupt import Interrupted, StopRequest
from stlm_jax.models.build import build_stlm
from stlm_jax.predictor import Predictor, state_template
from stlm_jax.previews import Previews
from stlm_jax.progress import ProgressLine, note
from stlm_jax.settings import Settings
from stlm_jax.train_state import TrainState, create_train_state
from stlm_jax.train_step import make_train_step
from stlm_jax.trained import CHECKPOINTS
from stlm_jax.weights import load_teacher
from stlm_jax.writers import MetricWriter

_SHOWN = ("loss", "cosine", "focal", "l1")  # on the progress line; all go to the files


def train(settings: Settings) -> None:
    """Train what is not finished of `config.data.categories`, then evaluate all of them.

    Raises:
        UserError: bad input, or a loss that is not finite.
        Interrupted: SIGINT or SIGTERM; the state is saved.
    """
    config, workdir = settings.config, settings.workdir
    run_info.check_same_run(workdir, config)
    dataset.prepare(config)
    dataset.check(config)
    splits = {name: dataset.split_of(config, name, "train") for name in config.data.categories}
    totals = {name: total_steps(config, name, len(split)) for name, split in splits.items()}
    run_info.write(workdir, config, settings.command)
    template = state_template(config)
    trainer: Trainer | None = None
    for category, records in splits.items():
        folder = workdir / category
        with Checkpoints(folder / CHECKPOINTS, config.checkpoint.keep) as checkpoints:
            restored = checkpoints.restore(template, discard_damaged=True)
            done = restored.step if restored else 0
            if done > totals[category]:
                raise UserError(
                    f"{folder / CHECKPOINTS}: trained for {done} steps, more than the "
                    f"{totals[category]} asked for; raise config.train.steps or use another "
                    "--workdir"
                )
            if done == totals[category]:
                note(f"{category}: finished before, {done} steps")
                continue
            trainer = trainer or Trainer(config)
            trainer.fit(category, records, totals[category], folder, checkpoints, restored)
    evaluate(settings)
    _calibrate_untested(config, workdir)


def _calibrate_untested(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Thresholds of the categories that evaluation leaves out, for prediction and exports."""
    untested = [
        name for name in config.data.categories if not dataset.split_of(config, name, "test")
    ]
    if not untested:
        return
    predictor = Predictor(config)
    for category in untested:
        predictor.load(workdir / category)
        calibration.load_or_make(workdir / category, config, predictor, category)


def total_steps(config: ml_collections.ConfigDict, category: str, images: int) -> int:
    """Steps of a category with so many good images; the last partial batch is dropped.

    Raises:
        UserError: there are fewer images than a batch holds.
    """
    if images < config.train.batch_size:
        raise UserError(
            f"{category}: {images} training images are fewer than "
            f"config.train.batch_size={config.train.batch_size}"
        )
    train = config.train
    steps = train.steps_of.get(category, train.steps)
    return steps or train.epochs * (images // train.batch_size)


def category_key(seed: int, category: str) -> jax.Array:
    """The key of a category's run; it does not depend on which others are trained."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(category.encode()))


class Trainer:
    """What all categories share: the compiled step, the teacher and the textures."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Load the teacher and the textures onto the device."""
        self.config = config
        self.model = build_stlm(config)
        teacher, self._teacher_variables = load_teacher(config)
        data = config.data
        bank = read_texture_bank(
            data.texture_root,
            data.texture_count,
            config.image_size,
            config.seed,
            dataset.skips(config),
        )
        self._textures = jax.device_put(bank)
        step = make_train_step(config, self.model, teacher)

        def step_with_key(state: TrainState, teacher_variables: Any, batch: dict) -> Any:
            return step(state, teacher_variables, batch, state.step_key())

        self._step = jit(step_with_key, donate_argnums=0)  # only the state is donated
        self.previews = Previews(config, self.model)

    def fit(
        self,
        category: str,
        records: list[Record],
        total: int,
        folder: Path,
        checkpoints: Checkpoints,
        restored: Restored | None = None,
    ) -> None:
        """Train one category from `restored` (or from the start) to step `total`."""
        config = self.config
        key = category_key(config.seed, category)
        images = self._images(category, records)
        loader = TrainLoader(
            images,
            batch_size=config.train.batch_size,
            seed=config.seed,
            processes=jax.process_count(),
            transfer=jax.device_put,
        )
        if restored is None:
            state, start = create_train_state(config, self.model, key, category, total), 0
        else:
            state, start = restored.state, restored.step
            loader.set_state(restored.data)
            note(f"{category}: going on from step {start}")
        calibration.forget(folder)  # the images are there, the weights are about to change
        # Copies: a donated buffer must belong to nobody else, and `device_put` may alias. With
        # the dtype given no leaf stays weakly typed, which would compile the step twice.
        state = jax.tree.map(lambda leaf: jnp.array(leaf, leaf.dtype, copy=True), state)
        with MetricWriter(folder, start) as writer, StopRequest() as stop:
            _Loop(self, category, total, loader, checkpoints, writer, stop).run(state, start)

    def _images(self, category: str, records: list[Record]) -> ImageCache:
        """This process's images, decoded as far as `config.data.cache_gib` goes."""
        config = self.config
        own = shard(records, jax.process_index(), jax.process_count())
        progress = ProgressLine(f"read {category}", len(own), unit="image")
        images = ImageCache(
            [record.image for record in own],
            dataset.reading(config),
            config.data.cache_gib * GIB,
            progress.update,
        )
        progress.close()
        if images.kept < len(images):
            note(
                f"{category}: config.data.cache_gib={config.data.cache_gib:g} holds {images.kept} "
                f"of {len(images)} images, the others are decoded on the fly"
            )
        return images


class _Loop:
    """The training loop of one category."""

    def __init__(
        self,
        trainer: Trainer,
        category: str,
        total: int,
        loader: TrainLoader,
        checkpoints: Checkpoints,
        writer: MetricWriter,
        stop: StopRequest,
    ):
        self._trainer, self._config, self._category = trainer, trainer.config, category
        self._total, self._loader, self._checkpoints = total, loader, checkpoints
        self._writer, self._stop = writer, stop
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def run(self, state: TrainState, start: int) -> None:
        trainer, config = self._trainer, self._config
        self._progress = ProgressLine(
            f"train {self._category}", self._total, start, config.train.batch_size
        )
        batches = iter(self._loader)
        done = start
        # The order is kauldron's: save, draw a batch, step. At the top of a pass the state has
        # seen `done` batches and the iterator has given `done`; only there may both be saved.
        while True:
            stopping = self._stop.requested
            due = done % config.checkpoint.every_steps == 0 or done == self._total or stopping
            if due and done > start:
                self._save(done, state)
            if done == self._total:
                break
            if stopping:
                raise Interrupted(
                    f"{self._category}: stopped at step {done} of {self._total}, saved; run the "
                    "same command again to go on from there"
                )
            batch = {"image": next(batches)["image"], "textures": trainer._textures}
            state, metrics = trainer._step(state, trainer._teacher_variables, batch)
            done += 1
            self._report()  # of an earlier step, while the device computes this one
            if done % config.log.every_steps == 0 or done == self._total:
                self._pending = (done, metrics)
            if trainer.previews.due(done):
                trainer.previews.write(self._writer, done, state, batch)
                self._progress.restart_clock(done)
            if done == start + 1:
                self._progress.restart_clock(done)  # leaves out the compilation
        self._progress.close()

    def _save(self, done: int, state: TrainState) -> None:
        self._report()
        host = jax.device_get(state)
        if not _all_finite(host.variables()):
            raise self._not_finite("a weight became infinite or nan", done)
        self._checkpoints.save(done, host, self._loader.get_state())
        self._progress.restart_clock(done)

    def _report(self) -> None:
        """Write the metrics that were set aside at the last log boundary, if any."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not math.isfinite(values["loss"]):
            raise self._not_finite(f"the loss became {values['loss']}", step)
        self._progress.update(step, {name: values[name] for name in _SHOWN})
        self._writer.write(step, values | {"steps_per_second": self._progress.rate})

    def _not_finite(self, what: str, step: int) -> UserError:
        self._progress.close()
        last = self._checkpoints.latest_step()
        saved = "no checkpoint was saved" if last is None else f"the last good one is step {last}"
        return UserError(
            f"{self._category}: {what} at step {step}, {saved}; try a lower "
            f"config.optimizer.learning_rate (now {self._config.optimizer.learning_rate:g}) in "
            "another --workdir"
        )


def _all_finite(host_arrays: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(host_arrays))
