"""What a TPU would do for a batch's samples: `python -m benchmarks.tpu_programs [--size=1024]`.

Compiles rotation and pseudo-anomalies ahead of time for one device of a TPU v5e, which needs
libtpu (`pip install jax[tpu]`) but no TPU, and prints one line of JSON: bytes accessed and FLOPs by
the compiler's count, bytes of temporaries, the results of all gathers in the optimised program,
and seconds of compiling.
"""

import argparse
import json
import os
import re
import time

from launch.chips import parse_topology

TOPOLOGY = parse_topology("v5e:4x4")
# JAX and libtpu read these when they are imported.
os.environ.update(TOPOLOGY.environment(), JAX_PLATFORMS="cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import SingleDeviceSharding  # noqa: E402

from stlm_jax.config import default  # noqa: E402
from stlm_jax.training.state import hyperparameters  # noqa: E402
from stlm_jax.training.step import draw_samples  # noqa: E402

TEXTURES = 256  # the default of config.data.texture_count
_GATHER = re.compile(r"= \(?(\w+\[[\d,]*\])[^=]*? gather\(")


def sample_arguments(size: int, batch: int) -> tuple:
    """Shapes and dtypes of the arguments of `draw_samples`, with every image turned."""
    config = default()
    config.data.rotation.default = "right_angles"
    batch_of_images = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "textures": jax.ShapeDtypeStruct((TEXTURES, size, size, 3), jnp.uint8),
    }
    hyper = jax.eval_shape(lambda: hyperparameters(config))
    return jax.eval_shape(lambda: jax.random.key(0)), batch_of_images, hyper


def measure(size: int, batch: int) -> dict:
    """Compiles the program and reads off what it costs."""
    topology = topologies.get_topology_desc(TOPOLOGY.name, TOPOLOGY.platform)
    device = SingleDeviceSharding(topology.devices[0])
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        sample_arguments(size, batch),
    )
    begin = time.perf_counter()
    compiled = jax.jit(draw_samples).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    cost = compiled.cost_analysis()
    return {
        "bytes_accessed": cost["bytes accessed"],
        "flops": cost["flops"],
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "gathers": _GATHER.findall(compiled.as_text()),
        "compile_seconds": round(seconds, 1),
    }


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.size, arguments.batch)))


if __name__ == "__main__":
    main()
