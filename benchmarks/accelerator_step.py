"""The published training step on the accelerator at hand, beside an eager PyTorch one.

ViT-H as the teacher, random weights, the same made-up samples, in one process and in turn: our step
with the teacher in it, our step with the teacher's features stored, and PyTorch's, whose teacher
looks at every image and every sample as the published code's does. Each in float32, in float32 with
products in TF32, and in bfloat16 with float32 parameters.

    python -m benchmarks.accelerator_step [--size=1024] [--batch=2] [--teacher=vit_h] [--steps=5]
        [--rounds=5] [--dtypes=float32,TF32,bfloat16] [--only=ours] [--config.KEY=VALUE]
"""

import argparse
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
from stlm_jax.models.build import SAM_VARIANTS, build_stlm
from stlm_jax.runtime.compilation import matmul_precision
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
    config: ml_collections.ConfigDict, precision: str, teacher_variables: Any, steps: int
) -> dict[str, dict[str, Any]]:
    """The compiled steps of a configuration, by kind: `call`, and what is known of each."""
    mesh = Mesh(np.asarray(jax.devices()[:1]), (DATA,))
    clean, textures, _ = samples(config.image_size, config.train.batch_size)
    given = {"image": clean, "textures": textures}
    found = {}
    with matmul_precision(precision):
        for program in programs(config, mesh):
            if program.name not in _KINDS:
                continue
            begin = time.perf_counter()
            trace = program.trace()
            compiled = trace.lower().compile()
            used = compiled.memory_analysis()
            variables = teacher_variables if program.name == TRAIN else None
            found[_KINDS[program.name]] = {
                "call": _our_call(config, program, compiled, variables, given, steps),
                "flops": lambda turns, trace=trace: flops(trace.jaxpr.jaxpr, turns),
                "bytes": used.temp_size_in_bytes + used.argument_size_in_bytes,
                "compile": time.perf_counter() - begin,
            }
    return found


def _our_call(
    config: ml_collections.ConfigDict,
    program: Program,
    compiled: Any,
    variables: Any,
    given: dict[str, np.ndarray],
    steps: int,
) -> Function:
    _, _, shapes = program.arguments
    batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    batch |= {name: jnp.resize(x, batch[name].shape) for name, x in given.items()}
    state = create_train_state(config, build_stlm(config), jax.random.key(0))
    # Copies, since the state is donated, and every step has the first step's samples: how often
    # the teacher is run depends on them.
    states = [jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), state)]

    def call() -> Any:
        for _ in range(steps):
            state, metrics = compiled(states[0], variables, batch)
            states[0] = state.replace(step=jnp.zeros_like(state.step))
        return jax.block_until_ready(metrics)

    return call


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
    """Prints a line of JSON for each step, and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"size": 1024, "batch": 2, "steps": 5, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--teacher", default="vit_h")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--only", choices=("ours", "torch"))
    options, overrides = parser.parse_known_args()
    dtypes = options.dtypes.split(",")
    calls: dict[str, Function] = {}
    known: dict[str, dict[str, Any]] = {}
    if options.only != "torch":
        for dtype, found in _all_ours(options, dtypes, overrides).items():
            for kind, facts in found.items():
                calls[f"{dtype}, {kind}"], known[f"{dtype}, {kind}"] = facts.pop("call"), facts
    if options.only != "ours":
        theirs = torch_calls(dtypes, options.size, options.batch, options.teacher, options.steps)
        calls |= {f"{dtype}, torch": call for dtype, call in theirs.items()}
    taken = {name: value / options.steps for name, value in seconds(calls, options.rounds).items()}
    for name, value in taken.items():
        print(json.dumps(_facts(name, value, calls[name], known, options)), flush=True)


def _all_ours(options: Any, dtypes: list[str], overrides: list[str]) -> dict[str, dict]:
    """Our steps of each dtype; compiled side by side, which several cores have use for."""
    asked = {"teacher.name": options.teacher, "teacher.cache_gib": 0}

    def config_of(dtype: str) -> ml_collections.ConfigDict:
        settings = {**asked, "dtype": DTYPES[dtype][1]}
        return published_config(options.size, options.batch, settings, overrides)

    _, variables = load_teacher(config_of(dtypes[0]))

    def make(dtype: str) -> dict[str, dict[str, Any]]:
        return our_programs(config_of(dtype), DTYPES[dtype][0], variables, options.steps)

    with ThreadPoolExecutor(len(dtypes)) as pool:
        return dict(zip(dtypes, pool.map(make, dtypes), strict=True))


def _facts(
    name: str, taken: float, call: Function, known: dict[str, dict[str, Any]], options: Any
) -> dict[str, Any]:
    """What is printed of a step: seconds, and where it is ours, operations and memory."""
    dtype, _, kind = name.partition(", ")
    facts = {"device": jax.devices()[0].device_kind, "dtype": dtype, "step": kind,
             "seconds": round(taken, 4), "images/s": round(options.batch / taken, 2)}  # fmt: skip
    if name not in known:
        return facts
    mine = known[name]
    passes = float(call()["teacher_passes"])
    work = mine["flops"](passes * options.batch)
    peak = chip_at_hand().operations(DTYPES[dtype][1], DTYPES[dtype][0])
    return {
        **facts,
        "teacher passes": passes,
        "TFLOP": round(work / 1e12, 2),
        "share of peak": round(work / taken / peak, 3),
        "GiB": round(mine["bytes"] / 2**30, 2),
        "compiled in": round(mine["compile"], 1),
    }


if __name__ == "__main__":
    main()
