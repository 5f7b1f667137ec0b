"""What a step takes on more devices, by the compiler: `python -m benchmarks.devices`.

Compiles for 1, 2, 4 and 8 simulated devices of this machine, each in a process of its own, the step
of an ensemble of eight groups (seeds) of one category, spread over the mesh's axis `member`, and of
one training whose batch of eight images is spread over `data`. Operations and memory are a
device's.

    python -m benchmarks.devices [--config=configs/demo.py] [--config.KEY=VALUE]
"""

import argparse
import json
import math
import time

import ml_collections

from launch.chips import parse_topology
from launch.compiling import compile_programs
from launch.measured import FROM_STORE, TRAIN, Measured
from stlm_jax import settings

DEVICES = (1, 2, 4, 8)
SHARED = 8  # groups of the ensemble, and images of the batch
_MINUTES = 60.0


def measure(config: ml_collections.ConfigDict, name: str, devices: int) -> Measured:
    """A program of a configuration, compiled for so many devices."""
    request = {
        "topology": f"cpu:{devices}",
        "config": json.loads(config.to_json()),
        "data": config.mesh.data,
        "images": 16,
        "limit": None,
        "programs": [name],
    }
    deadline = time.monotonic() + 60 * _MINUTES
    found = compile_programs(request, parse_topology(request["topology"]), deadline)
    return found.measured[name]


def spread(config: ml_collections.ConfigDict, way: str, devices: int) -> ml_collections.ConfigDict:
    """The configuration of one category on so many devices, `way` being the axis of the mesh."""
    config = config.copy_and_resolve_references()
    config.data.categories = config.data.categories[:1]
    if way == "member":
        config.ensemble.seeds = ",".join(map(str, range(SHARED)))
        config.ensemble.groups = SHARED // devices
    else:
        config.mesh.data, config.train.batch_size = devices, SHARED
    return config


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--stored", action="store_true", help="of the step from a store")
    options, overrides = parser.parse_known_args()
    read = settings.parse(["benchmark", f"--config={options.config}", *overrides])
    assert read
    print("| axis | devices | GFLOP | of one | MiB | of one | temporaries, MiB | collectives: MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for way in ("member", "data"):
        first = (math.nan, math.nan)
        for devices in DEVICES:
            found = measure(
                spread(read.config, way, devices), FROM_STORE if options.stored else TRAIN, devices
            )
            figures = found.flops / 1e9, found.peak / 2**20
            first = figures if devices == 1 else first
            shares = [figure / one for figure, one in zip(figures, first, strict=True)]
            sent = ", ".join(
                f"{number} {kind}: {size / 1e6:.2f}"
                for kind, (number, size) in found.traffic.items()
            )
            print(
                f"| {way} | {devices} | {figures[0]:.4g} | {shares[0]:.3f} | {figures[1]:.4g} "
                f"| {shares[1]:.3f} | {found.temporaries / 2**20:.4g} | {sent or 'none'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
