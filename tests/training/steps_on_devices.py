"""Training steps of a small model on some of eight simulated devices, in float64.

`python tests/training/steps_on_devices.py OUT RUN…` writes what each run computed to OUT/RUN.npz,
its compiled program's text to OUT/RUN.txt and, where one process has several devices, its forward
pass's to OUT/RUN.forward.txt. A run is its devices and what it does, such as `8-live` or
`1-live-per_device8`, see `take`. With `--coordinator`, `--processes` and `--process` this is one of
several that share the devices. In float64, since Adam makes a full step of any gradient, of
rounding noise, too.
"""

import argparse
import functools
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
# Before the models are imported: their defaults and casts name the dtype.
jnp.float32 = jnp.float64

from flax import traverse_util  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec  # noqa: E402

from stlm_jax.config import default  # noqa: E402
from stlm_jax.data.loader import TrainLoader  # noqa: E402
from stlm_jax.models import prompt_encoder, resize  # noqa: E402
from stlm_jax.models.build import build_sam, build_stlm  # noqa: E402
from stlm_jax.models.initialization import random_variables  # noqa: E402
from stlm_jax.runtime.hosts import join, parse_hosts  # noqa: E402
from stlm_jax.runtime.sharding import (  # noqa: E402
    put_rows,
    put_whole,
    share_of_rows,
    weight_shardings,
)
from stlm_jax.training.optimizer import make_optimizer  # noqa: E402
from stlm_jax.training.state import create_train_state  # noqa: E402
from stlm_jax.training.step import train_step  # noqa: E402
from stlm_jax.training.store_description import feature_shapes  # noqa: E402

# Constants that NumPy computes.
prompt_encoder.np = resize.np = types.SimpleNamespace(**{**vars(np), "float32": np.float64})

COUNT, SIZE, STEPS = 8, 32, 2


def wide(tree):
    """The tree with its floating leaves in float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


class OnMesh:
    """Puts what a process has of a batch, and what all devices have in full."""

    def __init__(self, mesh):
        self._mesh = mesh
        self.processes, self.process = share_of_rows(mesh, jax.process_index())

    def rows(self, tree):
        return put_rows(tree, self._mesh, "data")

    def whole(self, tree):
        return put_whole(tree, NamedSharding(self._mesh, PartitionSpec()))


def settings():
    config = default()
    config.image_size, config.train.batch_size = SIZE, COUNT
    config.teacher.name, config.student.encoder = "vit_tiny", "tiny_vit_test"
    config.dtype, config.remat = "float64", "none"
    config.data.rotation.default = "small"
    return config


class Stored:
    """Features that are known, of the rows of a process."""

    order = {"store": "drawn"}

    def __init__(self, config, placement):
        self._shapes = [x.shape for x in feature_shapes(config, COUNT)]
        self._placement = placement

    def of(self, number, index, rows):
        rng = np.random.default_rng(number)
        levels = [
            tuple(np.asarray(rng.normal(size=s), jnp.bfloat16) for s in self._shapes)
            for _ in range(2)
        ]
        of_samples = {
            "place": rng.integers(0, 2**32, COUNT, np.uint32),
            "number": rng.integers(0, 4, COUNT, np.int32),
            "clean": rng.random(COUNT) < 0.5,
            "targets": tuple(levels),
        }
        stored = self._placement.rows(jax.tree.map(lambda x: x[rows], of_samples))
        return {"stored": {**stored, "key": self._placement.whole(np.uint32([0, 9]))}}


class Cached:
    """Clean features of which some are known, of the rows of a process."""

    order = {"cache": "drawn"}

    def __init__(self, config, placement):
        self._shapes = [x.shape for x in feature_shapes(config, COUNT)]
        self._placement = placement

    def of(self, number, index, rows):
        rng = np.random.default_rng(number)
        levels = tuple(np.asarray(rng.normal(size=s), jnp.bfloat16) for s in self._shapes)
        of_samples = {"levels": levels, "known": rng.random(COUNT) < 0.5}
        cached = self._placement.rows(jax.tree.map(lambda x: x[rows], of_samples))
        return {"cached": {**cached, "rounded": self._placement.whole(np.bool_(True))}}


def loader_of(config, kind, placement):
    """The stream of this process's rows of every batch."""
    images = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3), np.uint8)
    processes = dict(processes=placement.processes, process=placement.process)
    kinds = {"stored": Stored, "cached": Cached}
    companion = kinds[kind](config, placement) if kind in kinds else None
    return TrainLoader(images, COUNT, 0, companion=companion, **processes)


def take(run: str):
    """The arrays after the steps of a run, by name, its program's text and its forward pass's.

    It is `DEVICES-KIND[-OPTION…]`: KIND is live, cached or stored, options are `accumulate2`,
    `per_device8` (batch normalisation in so many shares) and `fsdp`.
    """
    devices, kind, *options = run.split("-")
    devices = int(devices)
    config = settings()
    parts, shares = 1, 1
    for option in options:
        if option.startswith("accumulate"):
            parts = int(option.removeprefix("accumulate"))
        if option.startswith("per_device"):
            shares = int(option.removeprefix("per_device"))
            config.train.batch_norm = "per_device"
    mesh = Mesh(
        np.array(jax.devices()[:devices]).reshape(1, devices),
        ("member", "data"),
        axis_types=(AxisType.Auto,) * 2,
    )
    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    placement = OnMesh(mesh)
    model, teacher, variables = build_stlm(config, shares), None, None
    held = 0
    if kind != "stored":
        teacher = build_sam("vit_tiny", jnp.float64)
        variables = wide(random_variables(teacher, jax.random.key(3)))
        sharding = "fsdp" if "fsdp" in options else "replicated"
        places = weight_shardings(variables, mesh, "data", sharding)
        variables = put_whole(variables, places)
        held = sum(x.addressable_shards[-1].data.nbytes for x in jax.tree.leaves(variables))
    state = wide(create_train_state(config, model, jax.random.key(0), "x", 10))
    state = placement.whole(state)
    step = jax.jit(
        functools.partial(
            train_step,
            model,
            teacher,
            make_optimizer(config.optimizer),
            accumulate=parts,
            lanes=devices,
        ),
        out_shardings=(everywhere, None),
    )

    loader = loader_of(config, kind, placement)
    textures = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    batches = []
    for _ in range(STEPS):
        drawn = next(loader)
        del drawn["index"]
        image = placement.rows(drawn["image"])
        batches.append({**drawn, "image": image, "textures": placement.whole(textures)})
    compiled = step.lower(state, variables, batches[0]).compile()
    losses = []
    for batch in batches:
        with jax.transfer_guard("disallow"):  # as in the loop: nothing is sent that is not put
            state, metrics = compiled(state, variables, batch)
        losses.append([float(metrics[name]) for name in ("loss", "cosine", "focal", "l1")])
        if kind == "cached":
            assert devices == 1 or all(x.sharding.spec[0] == "data" for x in metrics["produced"])
    flat = traverse_util.flatten_dict(jax.device_get(state.student()), sep="/")
    facts = {"teacher_bytes": np.array(held), "losses": np.array(losses)}
    forward = ""
    if devices > 1 and jax.process_count() == 1:
        forward = forward_text(model, state, batch, split)
    return {**facts, **flat}, compiled.as_text(), forward


def forward_text(model, state, batch, split) -> str:
    """The program that predicts a batch as training does and leaves running statistics alone."""

    def forward(variables, image):
        return model.apply(variables, image, train=True, mutable=["batch_stats"])[0]

    compiled = jax.jit(forward, out_shardings=split).lower(state.student(), batch["image"])
    return compiled.compile().as_text()


def main(argv):
    parser = argparse.ArgumentParser()
    for name in ("coordinator", "processes", "process"):
        parser.add_argument(f"--{name}")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("runs", nargs="+")
    given = parser.parse_args(argv)
    join(parse_hosts(given.coordinator, given.processes, given.process))
    for name in given.runs:
        arrays, text, forward = take(name)
        jax.clear_caches()  # else the programs of all runs stay in memory
        np.savez(given.out / f"{name}.npz", **arrays)
        (given.out / f"{name}.txt").write_text(text)
        (given.out / f"{name}.forward.txt").write_text(forward)


if __name__ == "__main__":
    main(sys.argv[1:])
