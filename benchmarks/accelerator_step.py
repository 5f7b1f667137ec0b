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
import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card is shared with torch

import jax
import ml_collections

from benchmarks.against_torch import published_config, samples
from benchmarks.steps import chip_at_hand, our_programs
from benchmarks.timing import seconds
from stlm_jax.models.build import SAM_VARIANTS
from stlm_jax.training.start import load_teacher

# What float32 products are computed in, and what a model computes in.
DTYPES = {"float32": ("highest", "float32"), "TF32": ("default", "float32"),
          "bfloat16": ("default", "bfloat16")}  # fmt: skip
Function = Callable[[], Any]


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
