"""The command line of the plan."""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import ml_collections

from launch.arguments import config_of, parsed, whole
from launch.chips import EXAMPLES, Topology, parse_topology
from launch.measured import PROGRAMS
from stlm_jax.config import flatten
from stlm_jax.runtime.errors import UserError

USAGE = f"""\
usage: python -m launch.plan --config=FILE --topology=NAME [options] [--config.KEY=V]

Compiles the programs of a configuration for accelerators that need not be there, and says what
they take, how long the whole takes at least, and, where they do not fit, what to change. The exit
status is 0 where all fit, 1 where they do not, or not in time, and 2 for a wrong argument.

  --config=FILE           a Python file with get_config(), such as configs/mvtec.py
  --topology=NAME         such as {EXAMPLES};
                          a GPU and the CPU by the compiler of this machine; cpu:8 simulates
                          eight devices
  --batch_per_device=N    images of a training step on a device; default: config.train.batch_size
  --data=N                devices that share N times the batch; default: config.mesh.data share
                          config.train.batch_size
  --programs=A,B          of train, train_from_store, teacher_store, evaluation; default: all
  --images=N              good images of each category, where they can be counted nowhere
  --price=P               of a device for an hour, in any currency
  --memory_gib=X          in place of what a device has
  --max_minutes=X         for compiling everything; default 60
  --config.KEY=V          changes a key of the configuration"""


_VALUES = (
    "config", "topology", "batch_per_device", "data", "images", "programs", "price",
    "memory_gib", "max_minutes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """A checked command line; see `USAGE`."""

    config: ml_collections.ConfigDict
    file: str
    topology: Topology
    programs: tuple[str, ...]
    data: int
    images: int | None
    price: float | None
    memory_gib: float | None
    max_minutes: float
    changed: dict[str, Any]


def parse(argv: Sequence[str]) -> Options | None:
    """Reads `argv`, whose first element is the program's name; None after printing the help."""
    found = parsed(argv, USAGE, _VALUES)
    if found is None:
        return None
    given, keys = found
    if not given.config:
        raise UserError("--config is missing: give a configuration, e.g. --config=configs/mvtec.py")
    if not given.topology:
        raise UserError(f"--topology is missing: give one such as {EXAMPLES}")
    topology = parse_topology(given.topology)
    config = config_of(argv[0], given.config, keys)
    data = _data(given, config, topology)
    if topology.platform == "cpu" and topology.chips == 1 < data:
        topology = parse_topology(f"cpu:{data}")
    asked: dict[str, Any] = {}
    if given.data:
        if topology.chips % data:
            raise UserError(f"--data={data}: must divide the {topology.chips} devices")
        asked["mesh.data"] = data
    if given.data or given.batch_per_device:
        each = _whole(given, "batch_per_device", config.train.batch_size)
        asked["train.batch_size"] = each * data
    changed = {k: v for k, v in asked.items() if v != flatten(config)[k]}
    config.update_from_flattened_dict(changed)
    return Options(
        config=config,
        file=given.config,
        topology=topology,
        programs=_programs(given.programs),
        data=data,
        images=_whole(given, "images", None),
        price=_number(given, "price", None),
        memory_gib=_number(given, "memory_gib", None),
        max_minutes=_number(given, "max_minutes", 60.0) or 60.0,
        changed=changed,
    )


def _data(given: argparse.Namespace, config: ml_collections.ConfigDict, topology: Topology) -> int:
    """Devices that share a batch."""
    sides = config.mesh
    left = topology.chips // max(1, sides.member) if sides.data == -1 else sides.data
    return int(_whole(given, "data", max(1, left)))


def _programs(text: str | None) -> tuple[str, ...]:
    """Those that are named, in the table's order."""
    if text is None:
        return PROGRAMS
    by_name = {program.replace(" ", "_"): program for program in PROGRAMS}
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in by_name:
            raise UserError(f"--programs={text}: {name!r} is none of {', '.join(by_name)}")
    return tuple(program for name, program in by_name.items() if name in asked)


def _whole(given: argparse.Namespace, name: str, default: Any) -> Any:
    text = getattr(given, name)
    if text is None:
        return default
    return whole(name, text, 1)


def _number(given: argparse.Namespace, name: str, default: Any) -> Any:
    text = getattr(given, name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise UserError(f"--{name}={text}: must be a number above 0")
    return value
