"""What trainings cost together that are one ensemble: `python -m benchmarks.scale`.

Eight settings of one category with an untrained ViT-H as the teacher, `configs/mvtec.py` otherwise:
seconds and operations of a step of all eight in one program, with the teacher in it and from a
store, beside eight steps of trainings alone, taken in turn in one process.

    python -m benchmarks.scale [--size=256] [--batch=2] [--members=8] [--teacher=vit_h]
        [--rounds=3] [--count] [--config.KEY=VALUE]

`--count` compiles nothing: of the traced programs the operations of a step, the teacher run for
clean and pseudo-anomalous images, as before any of its passes was saved.
"""

import argparse
import math

import jax
import ml_collections

from benchmarks.against_torch import published_config
from benchmarks.steps import our_programs
from benchmarks.timing import seconds
from launch.arithmetic import flops
from launch.measured import FROM_STORE, TRAIN
from launch.programs import programs
from launch.together import trained_together
from stlm_jax.runtime.host_memory import keep_freed_memory
from stlm_jax.runtime.mesh import make_mesh
from stlm_jax.training.start import load_teacher

ALONE = "ours"


def counted(config: ml_collections.ConfigDict, members: int) -> dict[str, float]:
    """Operations of a member's step by kind, of the traced programs on one device."""
    together = config.copy_and_resolve_references()
    with together.unlocked():
        together.ensemble.settings = {str(number): "" for number in range(members)}
    mesh, found = make_mesh(1, 1), {}
    for size, each in ((1, config), (members, together)):
        trained = trained_together(each, {config.data.categories[0]: 1}, jax.devices()[:1], 1)
        for program in programs(each, mesh, trained):
            if program.name in (TRAIN, FROM_STORE):
                turns = 2.0 * config.train.batch_size
                work = flops(program.trace().jaxpr.jaxpr, turns)
                found[f"{program.name}, {size} member{'s' * (size > 1)}"] = work / size
    return found


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"size": 256, "batch": 2, "members": 8, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--teacher", default="vit_h")
    parser.add_argument("--count", action="store_true")
    options, overrides = parser.parse_known_args()
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # see `keep_freed_memory`
    asked = {"teacher.name": options.teacher, "teacher.cache_gib": 0, "data.texture_count": 64}
    config = published_config(options.size, options.batch, asked, overrides)
    if options.count:
        print(f"{options.size} px, batch {options.batch}, {options.teacher}: a step of one member")
        first = math.nan
        for kind, work in counted(config, options.members).items():
            first = work if math.isnan(first) else first
            print(f"{kind:32s} {work / 1e12:8.3f} TFLOP {work / first:8.4f} of alone")
        return
    _, variables = load_teacher(config)
    found = our_programs(config, config.precision, variables, 1, options.members)
    keep_freed_memory()  # as the command does, but not what compiling took
    calls = {kind: facts["call"] for kind, facts in found.items()}
    taken = seconds(calls, options.rounds)
    passes = {kind: float(call()["teacher_passes"].sum()) for kind, call in calls.items()}
    work = {
        kind: facts["flops"](passes[kind] * options.batch) / facts["members"]
        for kind, facts in found.items()
    }
    print(
        f"{jax.devices()[0].device_kind}, {options.size} px, batch {options.batch}, "
        f"{options.teacher}: a step of one member"
    )
    print(f"{'':24s} {'seconds':>8s} {'speed-up':>8s} {'TFLOP':>8s} {'of alone':>8s} {'GiB':>6s}")
    alone = taken[ALONE], work[ALONE]
    for kind, facts in found.items():
        each = taken[kind] / facts["members"]
        print(
            f"{kind:24s} {each:8.3f} {alone[0] / each:8.2f} {work[kind] / 1e12:8.4f} "
            f"{work[kind] / alone[1]:8.3f} {facts['bytes'] / 2**30:6.2f}"
        )


if __name__ == "__main__":
    main()
