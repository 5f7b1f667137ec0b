"""The published training step beside an eager PyTorch one: `python -m benchmarks.against_torch`.

MobileSAM as the teacher, float32, the same made-up samples. Each is a process of its own, in the
order ours, torch, ours, torch, so that a machine's drift falls on both; what is printed is the
median of a process's steps after the first two, and the most memory that it had (both take the same
room for Python and libraries).

    python -m benchmarks.against_torch [--size=1024] [--batch=2] [--steps=3] [--config.KEY=VALUE]
"""

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from configs import mvtec

_KINDS = ("ours", "torch")


def samples(size: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean and pseudo-anomalous images, (N, H, W, 3) uint8, and masks, (N, H, W)."""
    rng = np.random.default_rng(0)
    clean, texture = rng.integers(0, 256, (2, batch, size, size, 3), np.uint8)
    mask = np.zeros((batch, size, size), np.uint8)
    mask[:, size // 4 : size // 2, size // 3 : size // 2] = 1
    return clean, np.where(mask[..., None] > 0, texture, clean), mask


def published_config(
    size: int, batch: int, settings: Mapping[str, object], overrides: Sequence[str]
) -> ml_collections.ConfigDict:
    """`configs/mvtec.py` with an untrained teacher, the settings, and options over them."""
    from stlm_jax.settings import parse

    asked = {"image_size": size, "train.batch_size": batch, "teacher.checkpoint": "random",
             "data.root": ".", **settings}  # fmt: skip
    given = [f"--config.{key}={value}" for key, value in asked.items()]
    parsed = parse(["benchmark", f"--config={mvtec.__file__}", *given, *overrides])
    assert parsed
    return parsed.config


def our_step(size: int, batch: int, overrides: list[str]) -> Callable[[], object]:
    """A call of the step of `configs/mvtec.py` with MobileSAM, pseudo-anomalies made in it."""
    import jax

    from stlm_jax.models.build import build_stlm
    from stlm_jax.runtime.compilation import jit
    from stlm_jax.runtime.host_memory import keep_freed_memory
    from stlm_jax.training.optimizer import make_optimizer
    from stlm_jax.training.start import load_teacher
    from stlm_jax.training.state import create_train_state
    from stlm_jax.training.step import train_step

    keep_freed_memory()  # as the command does
    config = published_config(size, batch, {"teacher.name": "mobile_sam"}, overrides)
    model = build_stlm(config)
    teacher, variables = load_teacher(config)
    state = create_train_state(config, model, jax.random.key(0))
    clean, pseudo, _ = samples(size, batch)
    data = jax.device_put({"image": clean, "textures": pseudo})
    bound = functools.partial(train_step, model, teacher, make_optimizer(config.optimizer))
    step = jit(bound, donate_argnums=0)
    states = [state]

    def call() -> object:
        states[0], metrics = step(states[0], variables, data)
        return jax.block_until_ready(metrics)

    return call


def measure(kind: str, size: int, batch: int, steps: int, overrides: list[str]) -> None:
    """Prints seconds of each step and the peak of memory, as JSON."""
    if kind == "ours":
        step = our_step(size, batch, overrides)
    else:
        from benchmarks.torch_step import mobile_sam, torch_step

        step = torch_step(*samples(size, batch), mobile_sam())
    taken = []
    for _ in range(2 + steps):
        begin = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"first": taken[0], "seconds": taken[2:], "peak": peak}))


def main() -> None:
    """Prints a table, and the ratios of ours to torch's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=_KINDS, help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.only:
        measure(options.only, options.size, options.batch, options.steps, overrides)
        return
    results: dict[str, list[dict]] = {kind: [] for kind in _KINDS}
    for kind in _KINDS * 2:
        command = [sys.executable, "-m", "benchmarks.against_torch", *sys.argv[1:]]
        ended = subprocess.run(
            [*command, f"--only={kind}"], stdout=subprocess.PIPE, text=True, check=True
        )
        results[kind].append(json.loads(ended.stdout.splitlines()[-1]))
    print(f"{options.size} px, batch {options.batch}: seconds a step, GiB")
    best: dict[str, tuple[float, float]] = {}
    for kind, runs in results.items():
        seconds = [statistics.median(run["seconds"]) for run in runs]
        peak = max(run["peak"] for run in runs) / 2**30
        best[kind] = statistics.mean(seconds), peak
        first = ", ".join(f"{run['first']:.1f}" for run in runs)
        each = ", ".join(f"{x:.2f}" for x in seconds)
        print(f"{kind:6s} {each} s, {peak:.2f} GiB; the first, compiled: {first} s")
    ratios = [ours / torchs for ours, torchs in zip(best["ours"], best["torch"], strict=True)]
    print(f"ours to torch's: {ratios[0]:.2f} of the time, {ratios[1]:.2f} of the memory")


if __name__ == "__main__":
    main()
