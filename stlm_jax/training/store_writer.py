"""Writes a teacher feature store: an image's clean features and those of its variants a file."""

import functools
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stlm_jax.data import dataset
from stlm_jax.data.cache import GIB, ImageCache
from stlm_jax.data.held_out import HELD_OUT
from stlm_jax.data.records import Record
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.models.sam import Sam
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.paths import in_bucket, path_of
from stlm_jax.runtime.progress import Progress, note
from stlm_jax.training.feature_cache import rotates
from stlm_jax.training.feature_store import (
    DESCRIPTION,
    FeatureStore,
    pixel_digest,
    place_of,
)
from stlm_jax.training.rotation import policy_of
from stlm_jax.training.start import read_teacher
from stlm_jax.training.state import hyperparameters
from stlm_jax.training.store_description import describe, require_same
from stlm_jax.training.stored_features import category_key_data
from stlm_jax.training.teacher import TARGET_DTYPE, teacher_features
from stlm_jax.training.variants import draw_variant
from stlm_jax.weights.digest import weights_digest
from stlm_jax.workdir import LOCK

_IN_USE = "writes to it: wait for its end, stop it, or use another --config.teacher.store"


def write_store(config: ml_collections.ConfigDict) -> None:
    """Writes what is not there yet of `config.data.categories` to the folder `teacher.store`.

    Images that the configuration holds out are written, too: which ones those are depends on a
    run's seed. Whatever ends the command, what is there is whole, and the same command goes on.
    """
    folder = path_of(config.teacher.store)
    if not config.teacher.store:
        raise UserError("config.teacher.store is empty: give --config.teacher.store=DIR")
    if config.teacher.checkpoint == "none":
        raise UserError("config.teacher.checkpoint=none: a store is of a teacher: name its weights")
    dataset.prepare(config)
    dataset.check(config)
    records = {name: training_images(config, name) for name in config.data.categories}
    teacher, variables = read_teacher(config)
    assert teacher is not None
    data = config.data
    bank = read_texture_bank(
        data.texture_root, data.texture_count, config.image_size, config.seed, dataset.skips(config)
    )
    ours = describe(config, weights_digest(variables), bank)
    if (folder / DESCRIPTION).exists():
        require_same(folder, FeatureStore.open(folder).description, ours, writing=True)
    store = FeatureStore(folder, ours)
    say_need(config, store, records)
    with only_here(folder / LOCK, _IN_USE):
        write_json(folder / DESCRIPTION, ours)
        writer = Writer(config, store, teacher, variables, bank)
        for category, images in records.items():
            writer.write(category, images)


def training_images(config: ml_collections.ConfigDict, category: str) -> list[Record]:
    """The good images of a category that a run may train on."""
    splits = ("train", HELD_OUT)
    return [record for record in dataset.scan(config, category).records if record.split in splits]


def say_need(
    config: ml_collections.ConfigDict, store: FeatureStore, records: dict[str, list[Record]]
) -> None:
    """Says what room the store takes, and warns where the disk has less."""
    count = sum(map(len, records.values()))
    need = (
        sum(len(images) * store.slots(rotates(config, name)) for name, images in records.items())
        * store.slot_bytes()
    )
    there = sum(
        path.stat().st_size
        for name in records
        for path in (store.path(name, digest) for digest in store.digests(name))
    )
    said = (
        f"{store.folder}: features of {count} images, clean and of {store.variants} variants, take "
        f"{need / GIB:.3g} GiB; {there / GIB:.3g} are there"
    )
    if in_bucket(store.folder):
        note(said)
        return
    folder = store.folder.absolute()
    above = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(above).free
    note(f"{said}, {free / GIB:.3g} GiB of the disk free")
    if need - there > free:
        note(
            f"warning: {store.folder}: the disk will be full before the end; what is written until "
            "then can be used: lower config.teacher.store_variants or config.data.categories, or "
            "free some space"
        )


class Writer:
    """Computes and writes features of categories."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        store: FeatureStore,
        teacher: Sam,
        variables: Any,
        textures: np.ndarray,
    ):
        """Puts teacher and textures on the device."""
        self._config, self._store = config, store
        self._program = jit(functools.partial(features_of, teacher))
        self._constant = jax.tree.map(jnp.asarray, variables), jax.device_put(textures)
        self._compiled = False

    def write(self, category: str, records: list[Record]) -> None:
        """Writes the images of a category that are not there."""
        store, config = self._store, self._config.copy_and_resolve_references()
        policy, theirs = policy_of(config.data.rotation, category), store.policy(category)
        if theirs not in (None, policy):
            raise UserError(
                f"{store.folder / category}: its images are turned by data.rotation {theirs}, now "
                f"it is {policy}: take another --config.teacher.store"
            )
        train = [record for record in records if record.split == "train"]
        config.data.depth = dataset.find_depth(config, category, train)
        paths = [record.image for record in records]
        budget = config.data.cache_gib * GIB
        images = ImageCache(paths, dataset.image_reader(config), budget, f"read {category}")
        names = [pixel_digest(images[number]) for number in range(len(images))]
        store.begin(category, policy)
        there = store.digests(category)
        todo = {name: number for number, name in enumerate(names) if name not in there}
        done = len(images) - len(todo)
        if not todo:
            note(f"{category}: all {len(images)} images were there before")
            return
        turned = rotates(config, category)
        hyper = hyperparameters(config, category)
        waiting: tuple[str, list[Any]] | None = None
        with Progress(f"write {category}", len(images), done) as progress:
            for name, number in todo.items():
                # One image ahead, so that the device works while a file is written.
                begun = name, self._begin(category, name, images[number], hyper, turned)
                if waiting:
                    self._finish(category, *waiting, turned)
                    progress.update()
                waiting = begun
            assert waiting
            self._finish(category, *waiting, turned)
            progress.update()

    def _begin(
        self, category: str, name: str, pixels: np.ndarray, hyper: Any, turned: bool
    ) -> list[Any]:
        """What `features_of` gives of each variant of an image; may not be computed yet."""
        variables, textures = self._constant
        key = jax.device_put(category_key_data(self._config.seed, category))
        place, image = jax.device_put((np.uint32(place_of(name)), pixels))
        found = []
        for number in range(self._store.variants):
            draw = key, place, np.int32(number), image, textures, hyper
            arguments = (variables, *draw, np.bool_(turned or number == 0))
            if not self._compiled:
                compile_apart(self._program, *arguments)  # hears Ctrl-C
                self._compiled = True
            found.append(self._program(*arguments))
        return found

    def _finish(self, category: str, name: str, found: list[Any], turned: bool) -> None:
        """Writes an image's file."""
        of_pseudo, of_clean, changed = zip(*jax.device_get(found), strict=True)
        clean = list(of_clean if turned else of_clean[:1])
        pseudo = [
            one if is_changed else clean[number if turned else 0]
            for number, (one, is_changed) in enumerate(zip(of_pseudo, changed, strict=True))
        ]
        self._store.write(category, name, [*clean, *pseudo])


def features_of(
    teacher: Sam, variables: Any, key_data, place, number, image, textures, hyper, clean_needed
):
    """The features of a variant of an image, to be jitted.

    Args:
        teacher: its module.
        variables: the module's.
        key_data: as in `draw_variant`, like the next five.
        place: likewise.
        number: likewise.
        image: likewise.
        textures: likewise.
        hyper: likewise.
        clean_needed: whether those of the clean image are asked for.

    Returns:
        Levels of the sample and of the clean image, (L, h, w, C) bfloat16 each, and whether the
        sample is not the clean image; else there are no levels of it.
    """
    clean, sample = draw_variant(key_data, place, number, image, textures, hyper)
    changed = (sample.image != clean.astype(jnp.float32)).any()
    needed = jnp.stack([changed, clean_needed])[None]
    pair = teacher_features(teacher, variables, sample.image[None], clean[None], needed)
    of_pseudo, of_clean = (jnp.concatenate(levels).astype(TARGET_DTYPE) for levels in pair)
    return of_pseudo, of_clean, changed
