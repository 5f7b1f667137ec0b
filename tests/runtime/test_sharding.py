"""Where weights lie on a mesh, and what a teacher that lies in parts computes."""

import types

import numpy as np
import pytest
from jax.sharding import PartitionSpec
from other_processes import run_on_four_devices

from stlm_jax.runtime.sharding import share_of_rows, split_axis, spread_spec


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1280, 5120), 1),  # the longest
        ((5120, 1280), 0),
        ((8, 8), 0),  # of equals the first
        ((3, 3, 4, 1279), 2),  # of those that can be split
        ((127, 64), 1),
        ((27, 10), None),
        ((3,), None),
        ((), None),
        ((0, 5), None),
    ],
)
def test_the_longest_axis_that_can_be_is_split(shape, axis):
    assert split_axis(shape, 4) == axis
    names = [None] * len(shape)
    if axis is not None:
        names[axis] = "data"
    spec = PartitionSpec(*names) if axis is not None else PartitionSpec()
    assert spread_spec(shape, "data", 4) == spec
    assert spread_spec(shape, "data", 1) == PartitionSpec()


ON_FOUR_DEVICES = """
import functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from launch import hlo
from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import random_variables
from stlm_jax.runtime.sharding import weight_shardings
from stlm_jax.training.teacher import live_targets

sam = build_sam("vit_tiny")
variables = random_variables(sam, jax.random.key(0))
mesh = jax.make_mesh((1, 4), ("member", "data"), axis_types=(AxisType.Auto,) * 2)
split = NamedSharding(mesh, PartitionSpec("data"))
clean = np.random.default_rng(0).integers(0, 200, (4, 64, 64, 3), np.uint8)
pseudo = (clean + np.array([0, 9, 0, 9])[:, None, None, None]).astype(np.float32)
images = jax.device_put((pseudo, clean), split)
found, held = {}, {}
for sharding in ("replicated", "fsdp"):
    placed = jax.device_put(variables, weight_shardings(variables, mesh, "data", sharding))
    for device in range(4):
        held[sharding, device] = sum(
            x.addressable_shards[device].data.nbytes for x in jax.tree.leaves(placed)
        )
    run = jax.jit(functools.partial(live_targets, sam, lanes=4))
    sent = hlo.read(run.lower(placed, *images).compile().as_text()).collectives
    assert ("all-gather" in sent) == (sharding == "fsdp"), sent
    found[sharding] = jax.device_get(run(placed, *images)[0])
whole = sum(x.nbytes for x in jax.tree.leaves(variables))
for device in range(4):
    assert held["replicated", device] == whole
    assert whole / 4 <= held["fsdp", device] < 1.1 * whole / 4, (held, whole)
for ours, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
    assert np.linalg.norm(ours - theirs) < 1e-6 * np.linalg.norm(theirs)
"""


def test_a_teacher_in_parts_computes_what_a_whole_one_does():
    """Each device holds a quarter of it."""
    run_on_four_devices(ON_FOUR_DEVICES)


@pytest.mark.parametrize(
    ("owners", "shares"),
    [
        ([[0, 0, 0, 0]], [(1, 0)]),
        ([[0, 0, 1, 1]], [(2, 0), (2, 1)]),
        ([[0, 0], [1, 1]], [(1, 0), (1, 0)]),  # a member, or several, a process
        ([[0, 1], [0, 1]], [(2, 0), (2, 1)]),
        ([[0, 0, 1, 1], [2, 2, 3, 3]], [(2, 0), (2, 1), (2, 0), (2, 1)]),
    ],
)
def test_which_rows_a_process_reads(owners, shares):
    devices = np.empty(np.shape(owners), object)
    for place, owner in np.ndenumerate(owners):
        devices[place] = types.SimpleNamespace(process_index=owner)
    names = ("member", "data")
    shape = dict(zip(names, devices.shape, strict=True))
    mesh = types.SimpleNamespace(devices=devices, axis_names=names, shape=shape)
    assert [share_of_rows(mesh, process) for process in range(len(shares))] == shares
