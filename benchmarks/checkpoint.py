"""How long training stands still for a save: `python -m benchmarks.checkpoint [--config=FILE]`.

A training's whole state, its numbers drawn at random, is saved as the loop saves it, into a folder
of the system's temporary files. Printed are the medians of the time until the loop goes on and of
the time until the checkpoint is on disk, which is what it stood still before saves were written in
the background.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from stlm_jax.models.build import build_stlm
from stlm_jax.settings import parse
from stlm_jax.training.saving import save
from stlm_jax.training.state import TrainState, abstract_train_state
from stlm_jax.weights.checkpoint import Checkpoints


class NoLoader:
    """A loader as far as saving knows one."""

    def get_state(self) -> dict[str, Any]:
        """A position of some loader."""
        return {"next": 1}


def random_state(config_file: str) -> TrainState:
    """A state of the shapes of a configuration's."""
    config = parse(["benchmark", f"--config={config_file}"]).config
    template = abstract_train_state(config, build_stlm(config))
    key = jax.random.key(0)
    return jax.tree.map(lambda x: jax.random.normal(key, x.shape).astype(x.dtype), template)


def main() -> None:
    """Prints the two times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    state = jax.block_until_ready(random_state(arguments.config))
    still, whole = [], []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder) / "c") as checkpoints:
        for step in range(arguments.rounds + 1):
            # New arrays: of those saved before, JAX keeps the host's copy.
            state = jax.block_until_ready(jax.tree.map(lambda x: x + x.dtype.type(1), state))
            begin = time.perf_counter()
            save(checkpoints, step, state, NoLoader())
            still.append(time.perf_counter() - begin)
            checkpoints.wait()
            whole.append(time.perf_counter() - begin)
    leaves = jax.tree.leaves(state)
    size = sum(leaf.nbytes for leaf in leaves) / 2**20
    cores = len(os.sched_getaffinity(0))
    print(f"{jax.devices()[0].device_kind}, {cores} cores, {len(leaves)} arrays, {size:.0f} MiB")
    print(f"training stands still {1000 * statistics.median(still[1:]):8.0f} ms")
    print(f"on disk after         {1000 * statistics.median(whole[1:]):8.0f} ms")


if __name__ == "__main__":
    main()
