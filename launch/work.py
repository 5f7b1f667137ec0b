"""How much there is to do: images of the data set, steps and calls of each program."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from stlm_jax.data import dataset
from stlm_jax.data.demo.dataset import TEST_DEFECTIVE, TEST_GOOD, TRAIN_GOOD
from stlm_jax.data.held_out import count_held_out
from stlm_jax.data.sources.registry import ALL

# Images to train on and to test on. MVTec AD: table 1 of Bergmann et al., CVPR 2019; VisA:
# split_csv/1cls.csv as published with Zou et al., ECCV 2022.
PUBLISHED: dict[str, dict[str, tuple[int, int]]] = {
    "mvtec_ad": {
        "bottle": (209, 83), "cable": (224, 150), "capsule": (219, 132), "carpet": (280, 117),
        "grid": (264, 78), "hazelnut": (391, 110), "leather": (245, 124), "metal_nut": (220, 115),
        "pill": (267, 167), "screw": (320, 160), "tile": (230, 117), "toothbrush": (60, 42),
        "transistor": (213, 100), "wood": (247, 79), "zipper": (240, 151),
    },
    "visa": {
        "candle": (900, 200), "capsules": (542, 160), "cashew": (450, 150),
        "chewinggum": (453, 150), "fryum": (450, 150), "macaroni1": (900, 200),
        "macaroni2": (900, 200), "pcb1": (904, 200), "pcb2": (901, 200), "pcb3": (905, 201),
        "pcb4": (904, 201), "pipe_fryum": (450, 150),
    },
}  # fmt: skip


class Images(NamedTuple):
    """Images of a category; None where it is not known how many.

    Attributes:
        train: good ones that training sees.
        test: of the test split.
    """

    train: int | None
    test: int | None


class Work(NamedTuple):
    """What a configuration has to do.

    Attributes:
        source: where the numbers of images are from, in words; empty where they are not known.
        images: by category, that training sees; None where it is not known.
        steps: of training, likewise.
        tests: images to evaluate, likewise.
        runs: that each have a student of every category.
        packs: of groups of trainings that one program makes, one pack after the other; of each
            group, the longest first, its steps or None.
        each: groups of a pack that a device trains one after the other.
        sides: devices that a pack is spread over, and devices that share a batch.
    """

    source: str
    images: dict[str, int | None]
    steps: dict[str, int | None]
    tests: dict[str, int | None]
    runs: int = 1
    packs: Sequence[Sequence[int | None]] = ()
    each: int = 1
    sides: tuple[int, int] = (1, 1)


def count_images(
    config: ml_collections.ConfigDict, given: int | None
) -> tuple[str, dict[str, Images]]:
    """Where the numbers of images are from, in words, and they themselves by category.

    `given` is of images to train on in each category, in place of all other knowledge.
    """
    names, data = tuple(config.data.categories), config.data
    share = config.calibration.held_out
    if given is not None:
        return f"--images={given} a category", {name: Images(given, None) for name in names}
    if data.csv or data.train_dir or (data.root and Path(data.root).is_dir()):
        where = data.csv or data.train_dir or data.root
        return f"counted in {where}", _count(config)
    if data.demo:
        trained = TRAIN_GOOD - count_held_out(TRAIN_GOOD, share)
        drawn = Images(trained, TEST_GOOD + TEST_DEFECTIVE)
        return "of the demo set", {name: drawn for name in names}
    table = PUBLISHED.get(data.source, {})
    if all(name in table for name in names):
        counts = {}
        for name in names:
            train, test = table[name]
            counts[name] = Images(train - count_held_out(train, share), test)
        return "as published", counts
    return "", {name: Images(None, None) for name in names}


def _count(config: ml_collections.ConfigDict) -> dict[str, Images]:
    """Counts what there is, as training lists it; opens no image."""
    config = config.copy_and_resolve_references()
    if config.data.demo or tuple(config.data.categories) == (ALL,):
        config.data.demo = False  # whose set is there, and is not to be drawn by a plan
        dataset.prepare(config)
    splits: dict[str, Images] = {}
    for name in config.data.categories:
        records = dataset.scan(config, name).records
        train = sum(record.split == "train" for record in records)
        splits[name] = Images(train, sum(record.split == "test" for record in records))
    return splits


def work_of(config: ml_collections.ConfigDict, given: int | None) -> Work:
    """What a configuration has to do; its batch is `config.train.batch_size`."""
    from stlm_jax.training.train import total_steps  # here: it imports jax

    source, images = count_images(config, given)
    steps: dict[str, int | None] = {}
    for name, count in images.items():
        fixed = config.train.steps or name in config.train.steps_of
        known = count.train is not None or fixed
        steps[name] = total_steps(config, name, count.train or 0) if known else None
    return Work(
        source,
        {name: count.train for name, count in images.items()},
        steps,
        {name: count.test for name, count in images.items()},
    )


def calls(
    program: str, work: Mapping[str, Any], batch: int, variants: int
) -> dict[str, float] | None:
    """By category, how often a program runs that is none of training; None: that is not known.

    Args:
        program: its name; a run's evaluation.
        work: the fields of `Work`.
        batch: images in a call.
        variants: pseudo-anomalous ones that the teacher's store holds of an image.
    """
    from launch.measured import STORE

    if program == STORE:
        numbers = _scaled(work["images"], variants / batch)
    else:
        numbers = _scaled(work["tests"], 1 / batch)
    known = {name: float(number) for name, number in numbers.items() if number is not None}
    return known if len(known) == len(numbers) else None


def _scaled(numbers: Mapping[str, int | None], factor: float) -> dict[str, int | None]:
    return {k: None if n is None else math.ceil(n * factor - 1e-9) for k, n in numbers.items()}
