"""What is trained together on some devices, and the operations of its program."""

import pathlib

import pytest
from miniature import write_set
from other_processes import run_on_four_devices
from test_plan import row, run

from stlm_jax.config import default
from stlm_jax.training.layout import sides_of

ENSEMBLE = """
import runpy


def get_config():
    c = runpy.run_path({tiny!r})["get_config"]()
    c.train.steps_of.ring = 8
    c.ensemble.settings = {{"base": "", "slow": "optimizer.learning_rate=1e-4"}}
    return c
"""


@pytest.mark.parametrize(
    ("member", "data", "groups", "devices", "processes", "sides"),
    [
        (-1, 1, 3, 8, 1, (3, 1)),  # no more than there is work for
        (-1, 2, 3, 8, 1, (3, 2)),
        (-1, 2, 6, 8, 1, (4, 2)),
        (-1, 1, 3, 8, 2, (-1, 1)),  # all of them: each process has its own at work
        (2, -1, 1, 8, 1, (2, -1)),
        (4, 1, 1, 8, 1, (4, 1)),
        (-1, -1, 1, 8, 1, (-1, -1)),  # for `make_mesh` to refuse
    ],
)
def test_trainings_are_spread_over_the_devices_that_they_need(
    member, data, groups, devices, processes, sides
):
    config = default()
    config.mesh.member, config.mesh.data = member, data
    assert sides_of(config, groups, devices, processes) == sides


PACKS = """
import jax

from launch.together import trained_together
from stlm_jax.config import default

devices = jax.devices()


def told(steps, count=4, **changes):
    config = default()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    config.ensemble.settings = settings
    found = trained_together(config, steps, devices, count)
    return found, found.facts(steps)


settings = {}
fifteen = {str(number): number for number in range(15)}
found, facts = told(fifteen)
assert facts["packs"] == [[14, 13, 12, 11], [10, 9, 8, 7], [6, 5, 4, 3], [2, 1, 0]]
assert (found.shape, facts["each"], facts["sides"], facts["runs"]) == ((4, 1), 1, (4, 1), 1)
found, facts = told(fifteen, ensemble__groups=2)
assert facts["packs"] == [[14, 13, 12, 11, 10, 9, 8, 7], [6, 5, 4, 3, 2, 1, 0]]
assert (found.shape, facts["each"], len(list(found.rows()))) == ((8, 1), 2, 8)
found, facts = told(fifteen, mesh__member=1)
assert found.alone and facts["packs"] == [[number] for number in range(15)]
found, facts = told({"a": None})
assert found.alone and facts["packs"] == [[None]]
# A batch of two devices; the categories' numbers of steps are not known.
found, facts = told({"a": None, "b": None}, mesh__data=2)
assert facts["packs"] == [[None, None]] and facts["sides"] == (2, 2)

# Settings of one category share its samples; one that draws others is a group of its own.
settings = {f"s{number}": f"loss.l1_weight={number + 2}" for number in range(8)}
found, facts = told({"a": 5})
assert found.shape == (1, 8) and facts["sides"] == (1, 1) and not found.alone
assert facts["runs"] == 8 and facts["packs"] == [[5]]
settings = {"base": "", "opaque": "pseudo.beta_max=0.1"}
found, facts = told({"a": 5}, mesh__member=2)
assert found.shape == (2, 1) and facts["packs"] == [[5, 5]]
settings = {}
found, facts = told({"a": 5}, ensemble__seeds="3,4")
assert found.shape == (2, 1) and facts["sides"] == (2, 1) and facts["runs"] == 2
"""


def test_packs_and_groups():
    run_on_four_devices(PACKS)


OPERATIONS = """
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from launch.arithmetic import flops
from launch.measured import FROM_STORE, TRAIN
from launch.programs import programs
from launch.together import trained_together
from launch.worker import _mesh
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.settings import parse
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import abstract_train_state
from stlm_jax.training.step import Samples, draw_samples, update

config = parse(["test", "--config={path}", "--config.teacher.cache_gib=0"]).config


def counted(function, *arguments):
    return flops(jax.jit(function).trace(*arguments).jaxpr.jaxpr)


def shape(*sides, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sides, dtype)


# A pass of the teacher, a student's update, and the drawing of samples, each by itself.
teacher, model = build_sam("vit_tiny", jnp.float32), build_stlm(config)
variables = variable_shapes(teacher)
PASS = counted(teacher.apply, variables, shape(1, 64, 64, 3))
levels = jax.eval_shape(teacher.apply, variables, shape(2, 64, 64, 3))
state = abstract_train_state(config, model)
samples = Samples(shape(2, 64, 64, 3), shape(2, 64, 64), (tuple(levels), tuple(levels)))
STUDENT = counted(
    lambda state, samples: update(model, make_optimizer(config.optimizer), state, samples),
    state, samples,
)
images = {{"image": shape(2, 64, 64, 3, dtype=jnp.uint8),
          "textures": shape(4, 64, 64, 3, dtype=jnp.uint8)}}
key = jax.eval_shape(lambda: jax.random.key(0))
DRAWING = counted(draw_samples, key, images, state.hyper)
assert PASS > 0 < STUDENT

COLLECTIVES = ("psum", "all_gather", "ppermute", "all_to_all", "reduce_scatter", "pmin", "pmax")


def found_for(devices, each, inner):
    config.ensemble.groups, config.ensemble.inner = each, inner
    steps = {{"disc": 6, "ring": 8}}
    together = trained_together(config, steps, jax.devices(), devices)
    mesh = _mesh(jax.devices()[:devices], 1)
    return together, {{p.name: p for p in programs(config, mesh, together)}}


both = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.student()))
for devices, each, inner in ((2, 1, "vmap"), (1, 2, "map")):
    together, found = found_for(devices, each, inner)
    assert together.shape == (2, 2) and together.mesh.size == devices
    program = found[TRAIN]
    assert (program.batch, program.devices, program.trainings) == (4, devices, 4)
    traced = program.trace().jaxpr
    text = str(traced)
    assert not [name for name in COLLECTIVES if f" {{name}}[" in text]
    groups = 2 // devices  # of a device
    # Two samples a step: half are the clean image, and without a cache that one takes a pass.
    passes = 2 * (0.5 * 0.955 + 1)
    assert np.isclose(program.turns, passes)
    a_device = flops(traced.jaxpr, program.turns) / program.devices
    expected = groups * (DRAWING + passes * PASS + 2 * STUDENT)
    assert np.isclose(a_device, expected, rtol=1e-3), (devices, inner, a_device / expected)
    # Each device has the two students of each of its groups, and one teacher.
    held = program.held_bytes()
    assert held["parameters"] == groups * 2 * both
    assert held["teacher"] == sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables)
    )
    stored = found[FROM_STORE]
    a_device = flops(stored.trace().jaxpr.jaxpr, stored.turns) / stored.devices
    assert np.isclose(a_device, groups * (DRAWING + 2 * STUDENT), rtol=1e-3)
"""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Two groups, categories that end apart, of two settings each."""
    folder = tmp_path_factory.mktemp("together")
    path = folder / "ensemble.py"
    path.write_text(ENSEMBLE.format(tiny=str(write_set(folder))))
    return path


@pytest.mark.slow
def test_a_group_s_teacher_is_counted_once_and_each_of_its_students(ensemble):
    run_on_four_devices(OPERATIONS.format(path=ensemble))


@pytest.mark.slow
@pytest.mark.slow
def test_the_plan_of_an_ensemble_on_two_devices(ensemble, capfd):
    """By the compiler: nothing is sent, and a device has what its two students take."""
    option = [f"--config={ensemble}", "--programs=train_from_store"]
    status, lines, errors = run(capfd, *option, "--topology=cpu:2")
    assert status == 0, errors
    assert "trains 2 runs of 2 categories, up to 2 groups of trainings in one program" in lines[1]
    assert row(lines, "trainings in it") == ["4"]
    assert row(lines, "collectives") == ["none"]
    assert row(lines, "calls in all") == ["8"]  # the longer category's, for all four
    alone = [f"--config={pathlib.Path(ensemble).with_name('tiny.py')}", *option[1:]]
    _, single, _ = run(capfd, *alone, "--topology=cpu")
    for part in ("parameters", "optimiser"):
        ratio = float(row(lines, f"{part}, GiB")[0]) / float(row(single, f"{part}, GiB")[0])
        assert ratio == pytest.approx(2, rel=0.01)
    ratio = float(row(lines, "TFLOP a call")[0]) / float(row(single, "TFLOP a call")[0])
    assert ratio == pytest.approx(2, rel=0.01)
