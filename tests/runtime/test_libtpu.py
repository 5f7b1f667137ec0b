"""libtpu compiles the program that overflowed its stacks, and what else it is told stays."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from launch.chips import parse_topology
from launch.compiling import environment
from stlm_jax.runtime import libtpu
from stlm_jax.runtime.process import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 64

# The gradient of the published student's patch embedding.
PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from stlm_jax.models.tiny_vit import PatchEmbed

size = int(sys.argv[1])
embed, image = PatchEmbed(64, jnp.bfloat16), jnp.zeros((2, size, size, 3), jnp.bfloat16)

def objective(params, stats, image):
    found, _ = embed.apply({"params": params, **stats}, image, True, mutable=["batch_stats"])
    return jnp.square(found.astype(jnp.float32)).sum()

variables = dict(jax.eval_shape(lambda key: embed.init(key, image, True), jax.random.key(0)))
device = SingleDeviceSharding(topologies.get_topology_desc("v6e:2x2", "tpu").devices[0])
arguments = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
    (variables.pop("params"), variables, image),
)
jax.jit(jax.grad(objective)).lower(*arguments).compile()
print("compiled")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: python -m pip install -e '.[tpu]'",
)
def test_deep_fusions_compile():
    """In a process of its own: libtpu 0.0.42 ends it by a segmentation fault without the flag."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(SIZE)],
        env=environment(parse_topology("v6e:2x2"), os.environ),
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.stdout == "compiled\n", process.stderr[-2000:]


def test_what_the_user_tells_libtpu_has_the_last_word():
    alone = libtpu.arguments()
    assert libtpu.arguments("--xla_tpu_a=1") == f"{alone} --xla_tpu_a=1"
    own = "--fibers_default_thread_stack_size=65536 --xla_tpu_a=1"
    assert libtpu.arguments(own) == own
    assert libtpu.arguments(alone) == alone


def test_runs_tell_it_too(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_a=1")
    prepare("default", None)
    assert os.environ["LIBTPU_INIT_ARGS"] == libtpu.arguments("--xla_tpu_a=1")
