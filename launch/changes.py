"""What to change where a program does not fit, in the order in which it is tried."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections

from launch.measured import EVALUATION, FROM_STORE, PROGRAMS, STORE, TRAIN
from stlm_jax.config import flatten

_TRAINING = (TRAIN, FROM_STORE)


class Change(NamedTuple):
    """One change, on top of those before it.

    Attributes:
        overrides: keys of the configuration and their values.
        programs: which it makes smaller.
    """

    overrides: dict[str, Any]
    programs: tuple[str, ...]


def changes(config: ml_collections.ConfigDict, data: int) -> Iterator[Change]:
    """What may be tried, the cheapest in quality and time first.

    Args:
        config: as asked for.
        data: devices that share a batch.
    """
    known = flatten(config)
    if known["dtype"] != "bfloat16":
        yield Change({"dtype": "bfloat16"}, PROGRAMS)
    if known["remat"] != "blocks":
        yield Change({"remat": "blocks"}, _TRAINING)
    if known["ensemble.groups"] > 1:
        yield Change({"ensemble.groups": 1}, _TRAINING)
    each = known["train.batch_size"] // data
    for parts in range(known["train.accumulate"] + 1, each + 1):
        if each % parts == 0:
            yield Change({"train.accumulate": parts}, _TRAINING)
    images = known["evaluate.batch_size"]
    while images > 1:
        images //= 2
        yield Change({"evaluate.batch_size": images}, (EVALUATION,))
    if data > 1 and known["teacher.sharding"] != "fsdp":
        yield Change({"teacher.sharding": "fsdp"}, (TRAIN, STORE))


def pasted(overrides: dict[str, Any]) -> str:
    """Changes as options of a command line."""
    return " ".join(f"--config.{name}={value}" for name, value in overrides.items())
