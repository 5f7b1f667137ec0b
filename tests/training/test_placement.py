"""Where a pack's arrays lie, by how many devices and processes there are."""

import types

import numpy as np
import pytest
from other_processes import run_on_four_devices

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.mesh import make_mesh
from stlm_jax.runtime.sharding import rows_of_mesh

PUT = """
import jax, numpy as np
from stlm_jax.runtime.mesh import make_mesh
from stlm_jax.training.placement import Placement

groups, samples = 4, 6
batch = {"image": np.arange(groups * samples * 4.0).reshape(groups, samples, 2, 2, 1),
         "known": np.arange(groups * samples).reshape(groups, samples) % 3 > 0,
         "key": np.arange(groups * 2).reshape(groups, 2)}
for placement in (Placement(make_mesh(2, 2)), Placement(make_mesh(1, 2)), Placement(None)):
    assert placement.own(groups) == range(groups) and placement.leads
    with jax.transfer_guard("disallow"):  # as in the loop
        put = placement.batch(batch)
        whole = placement.groups(batch["image"])
        found = {group: placement.rows(put, group) for group in range(groups)}
    for name in ("image", "known"):
        held = {shard.data.shape[:2] for shard in put[name].addressable_shards}
        assert held == {(groups // placement.devices, samples // placement.lanes)}
        for group in range(groups):
            assert np.array_equal(found[group][name].read(), batch[name][group])
    assert {shard.data.shape[1] for shard in put["key"].addressable_shards} == {2}
    assert np.array_equal(placement.host(whole), batch["image"])
"""


def test_groups_and_samples_come_back_in_their_order():
    run_on_four_devices(PUT)


def of_processes(*counts):
    """Devices, of which so many each belong to the processes."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return [types.SimpleNamespace(process_index=int(owner)) for owner in owners]


@pytest.mark.parametrize(
    ("member", "data", "rows"),
    [
        (8, 1, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (4, 2, [[0, 1], [2, 3]]),
        (2, 4, [[0], [1]]),
        (1, 8, [[0], [0]]),
    ],
)
def test_a_process_has_the_groups_of_its_devices(monkeypatch, member, data, rows):
    monkeypatch.setattr("stlm_jax.runtime.mesh.Mesh", as_it_is)
    mesh = make_mesh(member, data, of_processes(4, 4))
    assert [rows_of_mesh(mesh, process) for process in range(2)] == rows


def as_it_is(devices, names, axis_types):
    return types.SimpleNamespace(devices=devices, axis_names=names)


@pytest.mark.parametrize(
    ("member", "data", "devices"),
    [
        (2, 2, of_processes(4, 4)),  # leaves a process without devices
        (2, 3, of_processes(3, 3, 3)),
        (4, 3, of_processes(4, 4, 4)),  # a process has a row and the third of another
        (3, 1, of_processes(2, 1)),
    ],
)
def test_what_processes_cannot_share_is_refused(member, data, devices):
    with pytest.raises(UserError, match="processes cannot share that: take all devices"):
        make_mesh(member, data, devices)
