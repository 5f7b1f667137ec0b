"""The demo's training step and its parts: `python -m benchmarks.train_step [--rounds=N]`.

Compares the step as it is with the step whose depthwise convolutions are XLA's grouped ones.
"""

import argparse
import functools
from unittest import mock

import jax
import numpy as np

from benchmarks.timing import seconds, table
from configs import demo
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models import layers
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.compilation import jit
from stlm_jax.runtime.host_memory import keep_freed_memory
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.start import load_teacher
from stlm_jax.training.state import create_train_state
from stlm_jax.training.step import train_step


def compiled_step(config, images, textures, compile_with=jit):
    """A call of the step on fixed data, compiled by `compile_with`."""
    model = build_stlm(config)
    teacher, teacher_variables = load_teacher(config)
    state = create_train_state(config, model, jax.random.key(0))
    batch = {"image": images, "textures": textures}
    arguments = (state, teacher_variables, batch)
    step = functools.partial(train_step, model, teacher, make_optimizer(config.optimizer))
    compiled = compile_with(step).lower(*arguments).compile()
    return lambda: compiled(*arguments)


def main() -> None:
    """Prints one table a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    config = demo.get_config()
    size, count = config.image_size, config.train.batch_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    textures = rng.integers(0, 256, (8, size, size, 3), np.uint8)
    functions = {"training step": compiled_step(config, images, textures)}
    with mock.patch.object(layers, "_shifted_depthwise", layers._grouped_depthwise):
        functions["with grouped convolutions"] = compiled_step(config, images, textures)
    functions["with XLA's own scheduler"] = compiled_step(config, images, textures, jax.jit)
    print(f"{jax.devices()[0].device_kind}, {size} px, batch {count}")
    print(table(seconds(functions, rounds), "with grouped convolutions", count))

    model = build_stlm(config)
    variables = create_train_state(config, model, jax.random.key(0)).student()
    predict = jit(make_predict_fn(config, model), static_argnums=2)
    one = images[:1]
    inference = {
        "prediction, one image": lambda: predict(variables, one, (size, size)),
    }
    print(table(seconds(inference, rounds), "prediction, one image", 1))


if __name__ == "__main__":
    main()
