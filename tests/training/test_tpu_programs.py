"""Making samples gathers no single pixels, which costs an accelerator most of all."""

import json
import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from stlm_jax.config import default
from stlm_jax.training.state import hyperparameters
from stlm_jax.training.step import draw_samples

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 256


def gathered(jaxpr, found=()):
    """How many places each gather of a program and of those within it reads."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "gather":
            found = (*found, math.prod(equation.invars[1].aval.shape[:-1]))
        for inner in jax.core.jaxprs_in_params(equation.params):
            found = gathered(inner, found)
    return found


def traced(function, *arguments):
    return gathered(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_no_pixel_is_gathered():
    config = default()
    config.data.rotation.default = "right_angles"
    images = jnp.zeros((2, 64, 64, 3), jnp.uint8)
    batch = {"image": images, "textures": images}
    found = traced(draw_samples, jax.random.key(0), batch, hyperparameters(config))
    assert max(found, default=0) <= 2  # the texture of each image, whole

    # The search does find one, also within a conditional.
    places = jnp.zeros((64, 64), jnp.int32)
    inner = lambda p: jax.lax.cond(p.sum() > 0, lambda: images[0, :, 0][p], lambda: images[0])  # noqa: E731
    assert traced(inner, places) == (64 * 64,)


def test_a_tpu_gathers_no_pixels_and_accesses_few_bytes():
    """Compiled ahead of time for a v5e; in a process of its own, as it changes JAX's platform."""
    pytest.importorskip("libtpu", reason="libtpu, of the extra `tpu`, is not installed")
    command = [sys.executable, "-m", "benchmarks.tpu_programs", f"--size={SIZE}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    measured = json.loads(process.stdout.splitlines()[-1])
    shapes = [re.findall(r"\d+", shape.split("[")[1]) for shape in measured["gathers"]]
    assert all(math.prod(map(int, shape)) < SIZE * SIZE for shape in shapes), measured
    # 0.195e9 as this was written; a single gather of the images' pixels alone is some 1e9.
    assert measured["bytes_accessed"] < 0.25e9, measured
