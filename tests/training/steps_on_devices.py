"""Training steps of a small model on some of eight simulated devices, in float64.

`python tests/training/steps_on_devices.py OUT RUN…` writes what each run computed to OUT/RUN.npz,
its compiled program's text to OUT/RUN.txt and its forward pass's to OUT/RUN.forward.txt. A run is
its devices and what it does, such as `8-live` or `1-live-per_device8`, see `take`. In float64,
since Adam makes a full step of any gradient, of rounding noise, too.
"""

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
from stlm_jax.models import prompt_encoder, resize  # noqa: E402
from stlm_jax.models.build import build_sam, build_stlm  # noqa: E402
from stlm_jax.models.initialization import random_variables  # noqa: E402
from stlm_jax.runtime.sharding import weight_shardings  # noqa: E402
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


def settings():
    config = default()
    config.image_size, config.train.batch_size = SIZE, COUNT
    config.teacher.name, config.student.encoder = "vit_tiny", "tiny_vit_test"
    config.dtype, config.remat = "float64", "none"
    config.data.rotation.default = "small"
    return config


def drawn_batch(config, kind, step):
    """The arrays of a step's batch, and which of them have a sample a row."""
    rng = np.random.default_rng(step)
    batch = {
        "image": rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8),
        "textures": rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8),
    }
    if kind == "stored":
        shapes = [x.shape for x in feature_shapes(config, COUNT)]
        levels = [tuple(jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes)] * 2
        batch["stored"] = {
            "key": np.asarray(jax.random.key_data(jax.random.key(9))),
            "place": rng.integers(0, 2**32, COUNT, np.uint32),
            "number": rng.integers(0, 4, COUNT, np.int32),
            "clean": rng.random(COUNT) < 0.5,
            "targets": tuple(levels),
        }
    return batch


def take(run: str):
    """The arrays after the steps of a run, by name, its program's text and its forward pass's.

    It is `DEVICES-KIND[-OPTION…]`: KIND is live or stored, options are `accumulate2`,
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
    model, teacher, variables = build_stlm(config, shares), None, None
    held = 0
    if kind == "live":
        teacher = build_sam("vit_tiny", jnp.float64)
        variables = wide(random_variables(teacher, jax.random.key(3)))
        sharding = "fsdp" if "fsdp" in options else "replicated"
        places = weight_shardings(variables, mesh, "data", sharding)
        variables = jax.device_put(variables, places)
        held = sum(x.addressable_shards[-1].data.nbytes for x in jax.tree.leaves(variables))
    state = wide(create_train_state(config, model, jax.random.key(0), "x", 10))
    state = jax.device_put(state, everywhere)
    step = jax.jit(
        functools.partial(
            train_step,
            model,
            teacher,
            make_optimizer(config.optimizer),
            accumulate=parts,
            lanes=devices,
        ),
        out_shardings=everywhere,
    )

    def placed(batch):
        return jax.tree.map(
            lambda x: jax.device_put(x, split if x.shape[0] == COUNT else everywhere), batch
        )

    batches = [placed(drawn_batch(config, kind, number)) for number in range(STEPS)]
    compiled = step.lower(state, variables, batches[0]).compile()
    losses = []
    for batch in batches:
        state, metrics = compiled(state, variables, batch)
        losses.append([float(metrics[name]) for name in ("loss", "cosine", "focal", "l1")])
    flat = traverse_util.flatten_dict(jax.device_get(state.student()), sep="/")
    facts = {"teacher_bytes": np.array(held), "losses": np.array(losses)}
    return {**facts, **flat}, compiled.as_text(), forward_text(model, state, batch, split)


def forward_text(model, state, batch, split) -> str:
    """The program that predicts a batch as training does and leaves running statistics alone."""

    def forward(variables, image):
        return model.apply(variables, image, train=True, mutable=["batch_stats"])[0]

    compiled = jax.jit(forward, out_shardings=split).lower(state.student(), batch["image"])
    return compiled.compile().as_text()


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:]:
        arrays, text, forward = take(name)
        np.savez(folder / f"{name}.npz", **arrays)
        (folder / f"{name}.txt").write_text(text)
        (folder / f"{name}.forward.txt").write_text(forward)
