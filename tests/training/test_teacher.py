"""The teacher runs on those images only that need it, and gives what a pass over all gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from miniature import write_set
from other_processes import run_on_four_devices

from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import random_variables, variable_shapes
from stlm_jax.models.stlm import Prediction
from stlm_jax.settings import parse
from stlm_jax.training import teacher as under_test
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import TrainState, abstract_train_state, hyperparameters
from stlm_jax.training.step import gradients, mean_gradients, train_step

COUNT, SIZE = 4, 64


@pytest.fixture(scope="module")
def teacher():
    sam = build_sam("vit_tiny")
    return sam, jax.tree.map(jnp.asarray, random_variables(sam, jax.random.key(3)))


@pytest.fixture(scope="module")
def images():
    """Clean images, and pseudo-anomalous ones of which the second and the last are changed."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    pseudo = clean.astype(np.float32)
    pseudo[1, 5:30, 7:40] = 200.5
    pseudo[3, 63, 63, 2] += 0.5  # one channel of one pixel
    return pseudo, clean


@pytest.fixture(scope="module")
def in_one_pass(teacher, images):
    """Features of all 2N images by one call of the teacher, as the published step makes it."""
    sam, variables = teacher
    both = jnp.concatenate([jnp.asarray(x, jnp.float32) for x in images])
    levels = jax.jit(sam.apply)(variables, both)
    return [x[:COUNT] for x in levels], [x[COUNT:] for x in levels]


def assert_close(found, expected, relative_error):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        for sample in range(COUNT):
            assert relative_error(ours[sample], theirs[sample]) < 1e-6


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_features_are_those_of_one_pass_over_all(
    teacher, images, in_one_pass, relative_error, lanes
):
    sam, variables = teacher
    run = jax.jit(functools.partial(under_test.teacher_features, sam, lanes=lanes))
    assert_close(run(variables, *images), in_one_pass, relative_error)
    targets = jax.jit(functools.partial(under_test.live_targets, sam, lanes=lanes))
    assert_close(targets(variables, *images)[0], in_one_pass, relative_error)


def counted(teacher, images, lanes=1):
    """The targets, the passes that the function counts, and those that a callback sees."""
    sam, variables = teacher
    seen = []

    class Counting:
        def apply(self, variables, images):
            jax.debug.callback(lambda x: seen.append(len(x)), images)
            return sam.apply(variables, images)

    run = jax.jit(functools.partial(under_test.live_targets, Counting(), lanes=lanes))
    targets, facts = run(variables, *images)
    jax.effects_barrier()
    return targets, float(facts["teacher_passes"]), sum(seen)


def test_an_image_that_was_not_changed_takes_one_pass(teacher, images):
    (of_pseudo, of_clean), passes, seen = counted(teacher, images)
    assert seen == COUNT + 2 and passes == seen / COUNT
    for level in range(2):
        same = [np.array_equal(of_pseudo[level][i], of_clean[level][i]) for i in range(COUNT)]
        assert same == [True, False, True, False]


def test_lanes_that_wait_for_another_count(teacher, images):
    """Of two lanes each has a changed image; then the second has both of them."""
    _, passes, seen = counted(teacher, images, lanes=2)
    assert seen == 6 and passes == 6 / COUNT
    pseudo, clean = (x[[0, 2, 1, 3]] for x in images)
    _, passes, seen = counted(teacher, (pseudo, clean), lanes=2)
    assert seen == 8 and passes == 8 / COUNT


def test_what_an_image_gives_does_not_depend_on_the_others(teacher, images):
    sam, variables = teacher
    run = jax.jit(functools.partial(under_test.live_targets, sam))
    pseudo, clean = images
    (whole, _), _ = run(variables, pseudo, clean)
    (alone, _), _ = run(
        variables, np.where(np.arange(COUNT)[:, None, None, None] == 3, pseudo, clean), clean
    )
    for ours, theirs in zip(alone, whole, strict=True):
        np.testing.assert_array_equal(ours[3], theirs[3])


ON_FOUR_DEVICES = """
import functools, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import random_variables
from stlm_jax.training.teacher import live_targets

sam = build_sam("vit_tiny")
variables = jax.tree.map(jnp.asarray, random_variables(sam, jax.random.key(0)))
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
clean = np.random.default_rng(0).integers(0, 200, (8, 64, 64, 3), np.uint8)
pseudo = clean + np.where(np.isin(np.arange(8), [0, 1, 5]), 9.0, 0.0)[:, None, None, None]
pseudo = pseudo.astype(np.float32)
run = jax.jit(functools.partial(live_targets, sam, lanes=4), in_shardings=(whole, split, split))
program = run.lower(variables, pseudo, clean).compile().as_text()
assert not re.search("all-gather|all-to-all|collective-permute", program)
assert "f32[1,64,64,3]" in program and "f32[4,64,64,3]" not in program
found, facts = run(
    *map(jax.device_put, (variables, pseudo, clean), (whole, split, split))
)
alone, _ = jax.jit(functools.partial(live_targets, sam))(variables, pseudo, clean)
for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(alone)):
    assert np.array_equal(ours, theirs)
# The first device has two samples that are changed, and four turns: the others wait.
assert float(facts["teacher_passes"]) == 4 * 4 / 8
"""


def test_devices_run_passes_of_their_own_images():
    """No image is sent to another device, and each runs one at a time."""
    run_on_four_devices(ON_FOUR_DEVICES)


# --- gradients of micro-batches ---


class Toy(nn.Module):
    """Two streams and a map that float32 computes to a millionth, as it does not the student."""

    @nn.compact
    def __call__(self, image, train=False, components=None):
        x = nn.avg_pool(image / 255, (16, 16), (16, 16))
        plain = nn.BatchNorm(not train, momentum=0.9)(nn.Conv(8, (1, 1))(x))
        denoising = nn.Conv(8, (1, 1))(x)
        map_ = nn.sigmoid(nn.Conv(1, (1, 1))(plain * denoising))[..., 0]
        return Prediction((plain, -plain), (denoising, 2 * denoising), map_)


@pytest.fixture(scope="module")
def part():
    """Targets, pseudo-anomalous images and masks of four samples, and a state of the toy."""
    rng = np.random.default_rng(1)
    pseudo = rng.uniform(0, 255, (COUNT, 4, 4, 3)).astype(np.float32)
    pseudo = pseudo.repeat(16, 1).repeat(16, 2)  # squares, else their means hardly differ
    mask = (rng.random((COUNT, SIZE, SIZE)) > 0.5).astype(np.float32)
    levels = rng.normal(size=(2, 2, COUNT, 4, 4, 8)).astype(np.float32)
    targets = tuple(tuple(stream) for stream in levels)
    variables = Toy().init(jax.random.key(0), pseudo)
    hyper = hyperparameters(default())
    state = TrainState(
        jnp.int32(0), *(variables[k] for k in ("params", "batch_stats")), (), hyper, 0
    )
    return state, targets, pseudo, mask


def test_accumulated_gradients_are_the_mean_of_the_parts(part, relative_error):
    state, *rest = part
    found, stats, metrics = mean_gradients(Toy(), state, *rest, 2)
    expected, running, losses = [], state, []
    for number in range(2):
        mine = jax.tree.map(lambda x, first=number: x[first::2], rest)
        grads, batch_stats, terms = gradients(Toy(), running, *mine)
        running = running.replace(batch_stats=batch_stats)
        expected.append(grads)
        losses.append(float(terms["loss"]))
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (found, *expected)]
    assert np.linalg.norm(flat[1] - flat[2]) > 0.1 * np.linalg.norm(flat[1])
    assert relative_error(flat[0], (flat[1] + flat[2]) / 2) < 1e-6
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-6)
    assert float(metrics["gradient_norm"]) == pytest.approx(np.linalg.norm(flat[0]), rel=1e-6)
    for ours, theirs in zip(
        jax.tree.leaves(stats), jax.tree.leaves(running.batch_stats), strict=True
    ):
        assert relative_error(ours, theirs) < 1e-6


def test_of_one_part_the_program_is_that_of_the_gradients(part):
    state, *rest = part
    programs = [
        str(jax.make_jaxpr(functools.partial(function, Toy()))(state, *rest))
        for function in (mean_gradients, gradients)
    ]
    assert programs[0] == programs[1] and "scan[" not in programs[0]
    of_two = str(jax.make_jaxpr(functools.partial(mean_gradients, Toy(), parts=2))(state, *rest))
    assert of_two.count("scan[") == 1


@pytest.mark.parametrize("parts", [1, 2])
def test_a_whole_step_takes_the_parts(tmp_path, parts):
    """Of the real student, traced only: it is the same state in the same shapes."""
    config = parse(["main", f"--config={write_set(tmp_path)}"]).config
    model = build_stlm(config)
    state = abstract_train_state(config, model)
    batch = {
        name: jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.uint8) for name in ("image", "textures")
    }
    sam = build_sam("vit_tiny")
    step = functools.partial(
        train_step, model, sam, make_optimizer(config.optimizer), accumulate=parts
    )
    after, metrics = jax.eval_shape(step, state, variable_shapes(sam), batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert {x.shape for x in metrics.values()} == {()} and "teacher_passes" in metrics
