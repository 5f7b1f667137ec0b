"""Where a prediction's time goes: `python -m benchmarks.inference_profile [--size=S] [--kind=…]`.

    python -m benchmarks.inference_profile [--size=1024] [--kind=flax|onnxruntime] [--calls=3]
        [--encoder=tiny_vit_5m] [--teacher=vit_h]

Times are of operations, as the thread saw them that waits for their workers. XLA names a fused
operation after its last part; a part of the model is the module that the operation stands in.
"""

import argparse
import collections
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.inference_kinds import WEIGHTS, onnx_file, write_models

KINDS_OF_MODULE = (  # the first that is found in an operation's place names its row
    (r"/attn/", "attention of the encoders"),
    (r"/mlp/", "MLPs of the encoders"),
    (r"/neck/", "necks of the encoders"),
    (r"/(patch_embed|layers_0|downsample)|/conv\d/|/local_conv/", "convolutions of the encoders"),
    (r"/blocks_\d+/|encoder[ST]/", "GELU, norms and sums of the encoders"),
    (r"(mask_decoder|prompt_encoder|_decoded)", "decoder"),
    (r"segmentation", "FA module"),
)
REST = "maps, scores and what XLA made of several parts"


class Operation(NamedTuple):
    """One operation's seconds in one call."""

    kind: str
    place: str
    seconds: float


def flax_operations(folder: Path, images: np.ndarray, calls: int) -> tuple[list[Operation], float]:
    """Operations of XLA's program, and the elapsed seconds of a call."""
    import jax

    from stlm_jax.inference.predict_fn import make_predict_fn
    from stlm_jax.inference.trained_model import load_trained
    from stlm_jax.runtime.compilation import jit

    trained = load_trained(folder / WEIGHTS)
    predict = jit(make_predict_fn(trained.config, trained.model), static_argnums=2)
    variables = jax.device_put(trained.variables)
    program = predict.lower(variables, images, images.shape[1:3]).compile()

    def call() -> None:
        jax.block_until_ready(program(variables, images))

    seconds = _seconds(call, calls)
    with jax.profiler.trace(str(folder / "trace")):
        for _ in range(calls):
            call()
    [trace] = (folder / "trace").rglob("*.xplane.pb")
    names = r"%?([\w.\-]+) = [^\n]*?op_name=\"([^\"]*)\""
    places = {name: place for name, place in re.findall(names, program.as_text())}
    return list(_traced(jax.profiler.ProfileData.from_file(str(trace)), places)), seconds


def _traced(profile, places: dict[str, str]) -> Iterator[Operation]:
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name:
                    kind = re.sub(r"[.\d]+$", "", name)
                    yield Operation(kind, places.get(name, ""), event.duration_ns / 1e9)


def onnxruntime_operations(
    folder: Path, images: np.ndarray, calls: int
) -> tuple[list[Operation], float]:
    """Operations of ONNX Runtime, and the elapsed seconds of a call."""
    import onnxruntime

    from stlm_jax.inference.onnx_model import run

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = str(folder / onnx_file("float32"))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    seconds = _seconds(lambda: run(session, images), calls)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(calls):
        run(session, images)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    return [Operation(e["args"]["op_name"], e["name"], e["dur"] / 1e6) for e in nodes], seconds


def _seconds(call: Callable[[], object], calls: int) -> float:
    call()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def module_of(place: str) -> str:
    """The row that an operation's place belongs to."""
    found = (name for pattern, name in KINDS_OF_MODULE if re.search(pattern, place))
    return next(found, REST)


def markdown(operations: list[Operation], key: Callable[[Operation], str], calls: int) -> str:
    """A table of seconds a call, the longest first; what is under a hundredth is one row."""
    sums: collections.Counter[str] = collections.Counter()
    for operation in operations:
        sums[key(operation)] += operation.seconds / calls
    whole, rest = sum(sums.values()), 0.0
    lines = ["| | s a call | share |", "| --- | ---: | ---: |"]
    for name, seconds in sums.most_common():
        if seconds < 0.01 * whole:
            rest += seconds
        else:
            lines.append(f"| {name} | {seconds:.3f} | {seconds / whole:.0%} |")
    return "\n".join([*lines, f"| all others | {rest:.3f} | {rest / whole:.0%} |"])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--kind", choices=("flax", "onnxruntime"), default="flax")
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--encoder", default="tiny_vit_5m")
    parser.add_argument("--teacher", default="vit_h", help="whose width the student has")
    options = parser.parse_args()
    of_kind = flax_operations if options.kind == "flax" else onnxruntime_operations
    shape = (1, options.size, options.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory() as name:
        precisions = ("float32",) if options.kind == "onnxruntime" else ()
        write_models(Path(name), options.size, options.encoder, options.teacher, precisions)
        operations, seconds = of_kind(Path(name), images, options.calls)
    within = sum(operation.seconds for operation in operations) / options.calls
    print(f"{seconds:.3f} s a call; while it was traced {within:.3f} s in operations\n")
    if options.kind == "flax":
        print(markdown(operations, lambda each: module_of(each.place), options.calls), "\n")
    print(markdown(operations, lambda each: each.kind, options.calls))


if __name__ == "__main__":
    main()
