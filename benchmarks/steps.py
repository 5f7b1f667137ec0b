"""Our training steps compiled and ready to be timed: of one training, from a store, of several."""

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from benchmarks.against_torch import samples
from launch.arithmetic import flops
from launch.chips import CHIPS, Chip
from launch.measured import FROM_STORE, TRAIN
from launch.programs import Program, programs
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.runtime.compilation import jit, matmul_precision
from stlm_jax.runtime.convolutions import order_convolutions
from stlm_jax.runtime.sharding import DATA
from stlm_jax.training.ensemble_step import ensemble_step
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import create_train_state

_KINDS = {TRAIN: "ours", FROM_STORE: "ours, stored"}


def chip_at_hand() -> Chip:
    """What is known of the default device."""
    kind = jax.devices()[0].device_kind.lower()
    return next((chip for name, chip in CHIPS.items() if name in kind), Chip())


def our_programs(
    config: ml_collections.ConfigDict,
    precision: str,
    teacher_variables: Any,
    steps: int,
    members: int,
) -> dict[str, dict[str, Any]]:
    """The compiled steps of a configuration, by kind: `call`, and what is known of each."""
    mesh = Mesh(np.asarray(jax.devices()[:1]), (DATA,))
    found = [program for program in programs(config, mesh) if program.name in _KINDS]
    wanted: dict[str, tuple[Program, int | None]] = {}
    for program in found:
        kind = _KINDS[program.name]
        wanted[kind] = program, None
        if members > 1:
            wanted[f"{kind}, {members} members"] = program, members

    def compile_one(item: tuple[Program, int | None]) -> dict[str, Any]:
        program, count = item
        variables = teacher_variables if program.name == TRAIN else None
        with matmul_precision(precision):  # of this thread
            return _compiled(config, program, count, variables, steps)

    # Compiling takes gigabytes.
    with ThreadPoolExecutor(max(1, min(len(wanted), (os.cpu_count() or 1) // 4))) as pool:
        return dict(zip(wanted, pool.map(compile_one, wanted.values()), strict=True))


def _compiled(
    config: ml_collections.ConfigDict,
    program: Program,
    members: int | None,
    variables: Any,
    steps: int,
) -> dict[str, Any]:
    begin = time.perf_counter()
    state = create_train_state(config, build_stlm(config), jax.random.key(0))
    clean, textures, _ = samples(config.image_size, config.train.batch_size)
    shapes = program.arguments[2]
    batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    batch |= {"image": jnp.asarray(clean)}
    batch |= {"textures": jnp.resize(textures, shapes["textures"].shape)}
    live = program.name == TRAIN
    teacher = build_sam(config.teacher.name, jnp.dtype(config.dtype)) if live else None
    if members is None:
        jitted, arguments = program.jitted, (variables, batch)
    else:
        order_convolutions()  # as the Trainer does
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, members, *x.shape)), state)
        batch = jax.tree.map(lambda x: x[None], batch)
        function = functools.partial(
            ensemble_step,
            build_stlm(config),
            teacher,
            make_optimizer(config.optimizer),
        )
        jitted = jit(function, donate_argnums=0)
        arguments = (jnp.ones((1, members), bool), variables, batch)
    trace = jitted.trace(state, *arguments)
    compiled = trace.lower().compile()
    used = compiled.memory_analysis()
    # Copies, since the state is donated, and every step has the first step's samples: how often
    # the teacher is run depends on them.
    states = [jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), state)]

    def call() -> Any:
        for _ in range(steps):
            state, metrics = compiled(states[0], *arguments)
            states[0] = state.replace(step=jnp.zeros_like(state.step))
        return jax.block_until_ready(metrics)

    return {
        "call": call,
        "flops": lambda turns: flops(trace.jaxpr.jaxpr, turns),
        "bytes": used.temp_size_in_bytes + used.argument_size_in_bytes,
        "compile": time.perf_counter() - begin,
        "members": members or 1,
    }
