"""The published training step on the accelerator at hand, beside an eager PyTorch one.

ViT-H as the teacher, random weights, the same made-up samples, in one process and in turn: our step
with the teacher in it, our step with the teacher's features stored, our step of several trainings
that share the teacher, and PyTorch's, whose teacher looks at every image and every sample as the
published code's does. Each in float32, in float32 with
products in TF32, and in bfloat16 with float32 parameters.

    python -m benchmarks.accelerator_step [--size=1024] [--batch=2] [--teacher=vit_h] [--steps=5]
        [--rounds=5] [--members=4] [--dtypes=float32,TF32,bfloat16] [--only=ours] [--config.…]
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card is shared with torch

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from benchmarks.against_torch import published_config, samples
from benchmarks.timing import seconds
from launch.arithmetic import flops
from launch.chips import CHIPS, Chip
from launch.measured import FROM_STORE, TRAIN
from launch.programs import DATA, Program, programs
from stlm_jax.models.build import SAM_VARIANTS, build_sam, build_stlm
from stlm_jax.runtime.compilation import matmul_precision
from stlm_jax.training.ensemble_step import ensemble_step
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.start import load_teacher
from stlm_jax.training.state import create_train_state

# What float32 products are computed in, and what a model computes in.
DTYPES = {"float32": ("highest", "float32"), "TF32": ("default", "float32"),
          "bfloat16": ("default", "bfloat16")}  # fmt: skip
_KINDS = {TRAIN: "ours", FROM_STORE: "ours, stored"}
Function = Callable[[], Any]


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
    wanted = {_KINDS[program.name]: (program, None) for program in found}
    if members > 1:
        wanted[f"ours, {members} members"] = (found[0], members)

    def compile_one(item: tuple[Program, int | None]) -> dict[str, Any]:
        program, count = item
        variables = teacher_variables if program.name == TRAIN else None
        with matmul_precision(precision):  # of this thread
            return _compiled(config, program, count, variables, steps)

    with ThreadPoolExecutor(len(wanted)) as pool:
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
    if members is None:
        jitted, arguments = program.jitted, (variables, batch)
    else:
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, members, *x.shape)), state)
        batch = jax.tree.map(lambda x: x[None], batch)
        function = functools.partial(
            ensemble_step,
            build_stlm(config),
            build_sam(config.teacher.name, jnp.dtype(config.dtype)),
            make_optimizer(config.optimizer),
        )
        jitted = jax.jit(function, donate_argnums=0)
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


def torch_calls(
    dtypes: list[str], size: int, batch: int, teacher: str, steps: int
) -> dict[str, Function]:
    """PyTorch's steps, by dtype."""
    import torch

    from benchmarks.torch_sam import ImageEncoderViT, Sam
    from benchmarks.torch_step import torch_step

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    variant = SAM_VARIANTS[teacher]
    widths = dict(variant.encoder_arguments)
    encoder = ImageEncoderViT(
        widths["embed_dim"], widths["depth"], widths["heads"], widths["global_blocks"],
        widths.get("window", 14), size // 16,
    )  # fmt: skip
    with torch.device(device):
        sam = Sam(encoder)

    def call_of(dtype: str) -> Function:
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        step = torch_step(*samples(size, batch), sam, device, kind)

        def call() -> None:
            torch.backends.cuda.matmul.allow_tf32 = dtype != "float32"
            torch.backends.cudnn.allow_tf32 = dtype != "float32"
            for _ in range(steps):
                loss = step()
            loss.item()  # waits for the device

        return call

    return {dtype: call_of(dtype) for dtype in dtypes}


def main() -> None:
    """Prints a line of JSON for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = {"size": 1024, "batch": 2, "steps": 5, "rounds": 5, "members": 4}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--teacher", default="vit_h")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--only", choices=("ours", "torch"))
    options, overrides = parser.parse_known_args()
    asked = {"teacher.name": options.teacher, "teacher.cache_gib": 0}

    def config_of(dtype: str) -> ml_collections.ConfigDict:
        settings = {**asked, "dtype": DTYPES[dtype][1]}
        return published_config(options.size, options.batch, settings, overrides)

    dtypes = options.dtypes.split(",")
    variables = None
    if options.only != "torch":
        _, variables = load_teacher(config_of(dtypes[0]))
    torchs: dict[str, Function] = {}
    if options.only != "ours":
        torchs = torch_calls(dtypes, options.size, options.batch, options.teacher, options.steps)
    for dtype in dtypes:
        known: dict[str, dict[str, Any]] = {}
        if variables is not None:
            config, precision = config_of(dtype), DTYPES[dtype][0]
            known = our_programs(config, precision, variables, options.steps, options.members)
        calls = {kind: facts["call"] for kind, facts in known.items()}
        calls |= {"torch": torchs[dtype]} if torchs else {}
        for kind, taken in seconds(calls, options.rounds).items():
            facts = _facts(dtype, kind, taken / options.steps, known.get(kind), options.batch)
            print(json.dumps(facts), flush=True)


def _facts(
    dtype: str, kind: str, taken: float, known: dict[str, Any] | None, batch: int
) -> dict[str, Any]:
    """What is printed of a step: seconds, and where it is ours, operations and memory."""
    facts = {"device": jax.devices()[0].device_kind, "dtype": dtype, "step": kind,
             "seconds": round(taken, 4)}  # fmt: skip
    if known is None:
        return facts
    passes = float(known["call"]()["teacher_passes"].sum())
    work = known["flops"](passes * batch)
    peak = chip_at_hand().operations(DTYPES[dtype][1], DTYPES[dtype][0])
    return {
        **facts,
        "seconds a member": round(taken / known["members"], 4),
        "teacher passes": passes,
        "TFLOP": round(work / 1e12, 2),
        "share of peak": round(work / taken / peak, 3),
        "GiB": round(known["bytes"] / 2**30, 2),
        "compiled in": round(known["compile"], 1),
    }


if __name__ == "__main__":
    main()
