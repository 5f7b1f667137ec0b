"""One step of several trainings in one program, of which those of a group share the teacher.

A *member* is one training: a category, a seed and its settings. Members of a *group* see the same
batch: its pseudo-anomalies are drawn and the teacher is run once for all of them. Arrays of members
have two leading axes, (groups, members of a group).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stlm_jax.models.sam import Sam
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.mesh import MEMBER
from stlm_jax.runtime.sharding import DATA
from stlm_jax.training.state import TrainState
from stlm_jax.training.step import Samples, prepare_samples, update

Tree = Any
PRODUCED = "produced"  # of a step's results that which is no metric


def ensemble_step(
    model: Stlm,
    teacher: Sam | None,
    optimizer: optax.GradientTransformation,
    states: TrainState,
    active: jax.Array,
    teacher_variables: Any,
    batch: dict[str, Any],
    *,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    lanes: int = 1,
    inner: str = "map",
) -> tuple[TrainState, dict[str, Any]]:
    """A step of every active member; jitted with its first three arguments bound.

    A member's step is `train_step` of its state and its group's batch, but for rounding. Groups
    that share a device, and members, are worked on one after the other.

    Args:
        model: the student of all.
        teacher: as in `train_step`.
        optimizer: of `make_optimizer`; its numbers are in the states.
        states: leaves (G, M, …). Of a group's active members the keys, the steps and the numbers
            that samples are drawn by are the same.
        active: (G, M) bool; other members keep their states, and a group without any does nothing.
        teacher_variables: as in `train_step`.
        batch: as in `train_step`, leaves (G, …).
        mesh: whose axis `member` groups are split over; None: one device.
        accumulate: as in `train_step`.
        lanes: as in `train_step`.
        inner: of the members of a group: `map`, one after the other, whose convolutions are those
            of a single training, or `vmap`, together.

    Returns:
        The states, and the metrics of `train_step`, (G, M); those of members that are not active
        are nan. `teacher_passes` is a member's share of its group's. `produced` is (G, …).
    """

    def step(state: TrainState, samples: Samples):
        return update(model, optimizer, state, samples, accumulate)

    def groups(states, active, variables, batch):
        def group(states: TrainState, active, batch):
            return _group_step(step, inner, teacher, states, active, variables, batch, lanes)

        return _one_by_one(group, states, active, batch)

    if mesh is None:
        return groups(states, active, teacher_variables, batch)
    split = PartitionSpec(MEMBER)
    states, metrics = jax.shard_map(
        groups,
        mesh=mesh,
        in_specs=(split, split, PartitionSpec(), split),
        out_specs=split,
        axis_names={MEMBER},
        check_vma=False,
    )(states, active, teacher_variables, batch)
    return placed(mesh, states, metrics)


def placed(mesh: Mesh, states: Tree, metrics: dict[str, Any]) -> tuple[Tree, dict[str, Any]]:
    """Says where a step's results lie: states where they were, metrics known to all processes.

    What is produced stays where it was made.
    """

    def put(tree: Tree, *axes: str) -> Tree:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(*axes)))

    produced = {name: metrics[name] for name in [PRODUCED] if name in metrics}
    others = {name: value for name, value in metrics.items() if name not in produced}
    if mesh.is_multi_process:
        others = put(others)
    return put(states, MEMBER), others | put(produced, MEMBER, DATA)


def of_one(step: Callable, states: TrainState, active, teacher_variables: Any, batch: Tree):
    """A step of one member as `ensemble_step` takes and gives it.

    Args:
        step: `train_step`, its first three arguments bound.
        states: leaves (1, 1, …), like `active`, which is not asked: training ends with its member.
        active: see `states`.
        teacher_variables: as in `train_step`.
        batch: leaves (1, …).
    """
    del active
    state, metrics = step(
        jax.tree.map(lambda x: x[0, 0], states),
        teacher_variables,
        jax.tree.map(lambda x: x[0], batch),
    )
    produced = {PRODUCED: _lead(metrics.pop(PRODUCED))} if PRODUCED in metrics else {}
    return _lead(_lead(state)), _lead(_lead(metrics)) | produced


def _lead(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: x[None], tree)


def _group_step(
    step: Callable[[TrainState, Samples], tuple[TrainState, dict[str, Any]]],
    inner: str,
    teacher: Sam | None,
    states: TrainState,
    active: jax.Array,
    variables: Any,
    batch: dict[str, Any],
    lanes: int,
) -> tuple[TrainState, dict[str, Any]]:
    """The step of one group, states (M, …) and batch without leading axes."""
    # The keys and numbers of one that is active: others have stopped at earlier steps.
    lead = jax.tree.map(lambda x: x[jnp.argmax(active)], states.replace(params=(), opt_state=()))

    def prepare(batch):
        return prepare_samples(teacher, lead.step_key(), lead.hyper, variables, batch, lanes)

    samples, facts = jax.lax.cond(active.any(), prepare, _zeros_of(prepare, batch), batch)

    def member(state: TrainState, is_active):
        def ahead(state):
            return step(state, samples)

        _, shapes = jax.eval_shape(ahead, state)
        unknown = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
        return jax.lax.cond(is_active, ahead, lambda state: (state, unknown), state)

    if inner == "vmap":
        states, metrics = jax.vmap(member)(states, active)
    else:
        states, metrics = _one_by_one(member, states, active)
    produced = {k: v for k, v in facts.items() if k == PRODUCED}
    passes = facts["teacher_passes"] / jnp.maximum(active.sum(), 1)
    return states, {**metrics, "teacher_passes": jnp.where(active, passes, 0.0), **produced}


def _zeros_of(function: Callable, *arguments: Tree) -> Callable:
    shapes = jax.eval_shape(function, *arguments)
    return lambda *_: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _one_by_one(function: Callable, *arguments: Tree) -> Tree:
    """`function` of each along the leading axes, one after the other."""
    if jax.tree.leaves(arguments)[0].shape[0] == 1:  # no loop, in which compilers do less
        result = function(*jax.tree.map(lambda x: x[0], arguments))
        return _lead(result)
    return jax.lax.map(lambda one: function(*one), arguments)
