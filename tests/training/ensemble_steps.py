"""Steps of an ensemble and of its members alone, in float64, where rounding is nothing.

`python tests/training/ensemble_steps.py OUT KIND…` writes as JSON how far, relatively, the losses
and the students of each kind are from those of single trainings after ten steps. A kind is `map` or
`vmap`, and for meshes `map:MEMBERxDATA` of simulated devices.
"""

import functools
import json
import os
import pathlib
import sys
import types

os.environ["XLA_FLAGS"] = (
    # The programs are small and run ten times: they are not worth optimising.
    "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0 "
    "--xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_enable_x64", True)
# Before the models are imported: their defaults and casts name the dtype.
jnp.float32 = jnp.float64

from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from stlm_jax.config import default  # noqa: E402
from stlm_jax.models import prompt_encoder, resize  # noqa: E402
from stlm_jax.models.build import build_sam, build_stlm  # noqa: E402
from stlm_jax.models.initialization import random_variables  # noqa: E402
from stlm_jax.runtime.compilation import jit  # noqa: E402
from stlm_jax.runtime.convolutions import order_convolutions  # noqa: E402
from stlm_jax.runtime.mesh import make_mesh  # noqa: E402
from stlm_jax.runtime.sharding import put_whole  # noqa: E402
from stlm_jax.training.ensemble_step import ensemble_step  # noqa: E402
from stlm_jax.training.optimizer import make_optimizer  # noqa: E402
from stlm_jax.training.placement import Placement  # noqa: E402
from stlm_jax.training.state import category_key, create_train_state  # noqa: E402
from stlm_jax.training.step import train_step  # noqa: E402

prompt_encoder.np = resize.np = types.SimpleNamespace(**{**vars(np), "float32": np.float64})

SIDE, BATCH, STEPS = 32, 4, 10
CATEGORIES = ("disc", "ring")  # the second is turned
SETTINGS = (
    {},
    {"optimizer.learning_rate": 1e-3, "loss.focal_gamma": 2.0, "student.streams": "denoising"},
)


def config():
    made = default()
    made.image_size, made.dtype, made.remat = SIDE, "float64", "none"
    made.teacher.name, made.student.encoder = "vit_tiny", "tiny_vit_test"
    made.student.segmentation_channels = 8
    made.data.rotation.ring = "small"
    return made


def wide(tree):
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def main(out: pathlib.Path, kinds: list[str]) -> None:
    model, teacher = build_stlm(config()), build_sam("vit_tiny", jnp.float64)
    variables = wide(random_variables(teacher, jax.random.key(9)))
    optimizer = make_optimizer(config().optimizer)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS, len(CATEGORIES), BATCH, SIDE, SIDE, 3), np.uint8)
    textures = rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    first = {}
    for i, category in enumerate(CATEGORIES):
        for j, setting in enumerate(SETTINGS):
            own = config()
            own.update_from_flattened_dict(setting)
            key = category_key(0, category)
            first[i, j] = wide(create_train_state(own, model, key, category, STEPS))

    step = jit(functools.partial(train_step, model, teacher, optimizer))
    alone = {}
    for (i, j), state in first.items():
        for number in range(STEPS):
            batch = {"image": images[number, i], "textures": textures}
            state, metrics = step(state, variables, batch)
        alone[i, j] = state.student(), float(metrics["loss"])

    result = {}
    for kind in kinds:
        inner, _, sides = kind.partition(":")
        mesh = make_mesh(*map(int, sides.split("x"))) if sides else None
        result[kind] = distances(
            functools.partial(ensemble_step, model, teacher, optimizer, inner=inner),
            Placement(mesh), first, variables, images, textures, alone,
        )  # fmt: skip
    out.write_text(json.dumps(result))


def distances(step, placement, first, variables, images, textures, alone):
    """The largest of losses and students; and whether one that is not active was left as it was."""
    shape = len(CATEGORIES), len(SETTINGS)
    # Arrays of the host here and below: of others each shape would be a program to compile.
    states = jax.tree.map(
        lambda *x: np.stack(x).reshape(*shape, *x[0].shape), *map(jax.device_get, first.values())
    )
    order_convolutions()  # as for any ensemble; the trainings alone were made without
    lanes = placement.lanes
    step = jit(functools.partial(step, mesh=placement.mesh, lanes=lanes))
    states, shown = placement.groups(states), placement.groups(jnp.ones(shape, bool))
    banks = placement.groups(np.stack([textures] * len(CATEGORIES)))
    if placement.mesh:
        variables = put_whole(variables, NamedSharding(placement.mesh, PartitionSpec()))
    for number in range(STEPS):
        batch = {**placement.batch({"image": images[number]}), "textures": banks}
        states, metrics = step(states, shown, variables, batch)
    states, metrics = jax.device_get((states, metrics))
    found = {"loss": 0.0, "student": 0.0, "passes": float(metrics["teacher_passes"].sum())}
    for place, (student, loss) in alone.items():
        ours = jax.tree.map(lambda x, place=place: x[place], states.student())
        found["loss"] = max(found["loss"], abs(float(metrics["loss"][place]) / loss - 1))
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(student), strict=True):
            scale = np.abs(np.asarray(y)).max() + 1e-3  # zeros' gradients are rounding alone
            found["student"] = max(found["student"], float(np.abs(x - np.asarray(y)).max() / scale))

    # The lead of the first group has stopped, with weights that are nan.
    some = np.ones(shape, bool)
    some[0, 0] = False
    broken = jax.tree.map(np.array, states)
    broken.step[0, 0] = 3
    for leaf in jax.tree.leaves(broken.params):
        leaf[0, 0] = np.nan
    expected, _ = step(placement.groups(states), shown, variables, batch)
    after, metrics = step(placement.groups(broken), placement.groups(some), variables, batch)
    expected, after, metrics = jax.device_get((expected, after, metrics))
    rest = {name: x for name, x in vars(expected).items() if name != "key"}
    found["others_moved"] = max(
        float(np.abs(x[place].astype(float) - y[place].astype(float)).max())
        for place in ((0, 1), (1, 0), (1, 1))
        for x, y in zip(
            jax.tree.leaves(rest),
            jax.tree.leaves({name: getattr(after, name) for name in rest}),
            strict=True,
        )
    )
    found["stopped_step"] = int(after.step[0, 0])
    found["stopped_loss"] = str(float(metrics["loss"][0, 0]))
    return found


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
