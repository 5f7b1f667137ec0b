"""Random weights by the published code's rules, from one draw.

Flax's own `init` would compile hundreds of small random generators, which takes longer than the
demo trains; here one truncated normal vector is cut into all tensors.
"""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

Variables = dict[str, Any]

_PROBE_SIZE = 64  # pixels; the shapes of variables do not depend on the image's size


def _torch_default(fan_in, _):
    return 1.0 / math.sqrt(3.0 * fan_in)  # the deviation of U(±1/√fan_in)


def _kaiming_fan_out(_, fan_out):
    return math.sqrt(2.0 / fan_out)


def _deviation(value: float):
    return lambda *_: value


# The first pattern found in a path 'collection/module/…/leaf' decides: mean, deviation by fans.
RULES = (
    (r"layers_\d/blocks_\d+/conv3/bn/scale$", 0.0, None),  # MBConv starts as the identity
    (r"/(scale|var)$", 1.0, None),
    (r"/(bias|mean)$", 0.0, None),
    (r"/(attention_biases|rel_pos_[hw]|pos_embed)$", 0.0, None),
    (r"/(embedding|positional_encoding_gaussian_matrix)$", 0.0, _deviation(1.0)),
    (r"^params/segmentation/.*/kernel$", 0.0, _kaiming_fan_out),
    (r"encoder.?/layers_\d/.*/(qkv|proj|fc1|fc2)/kernel$", 0.0, _deviation(0.02)),  # TinyViT
    (r"/kernel$", 0.0, _torch_default),
)


@functools.lru_cache(maxsize=8)
def variable_shapes(model: nn.Module) -> Variables:
    """Shapes and dtypes of a model's variables; computes nothing."""
    image = jax.ShapeDtypeStruct((1, _PROBE_SIZE, _PROBE_SIZE, 3), jnp.uint8)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def _rule(path: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for pattern, mean, deviation in RULES:
        if re.search(pattern, path):
            if deviation is None:
                return mean, 0.0
            receptive = math.prod(shape[:-2]) if len(shape) > 2 else 1
            return mean, deviation(receptive * shape[-2], receptive * shape[-1])
    raise ValueError(f"no initialisation rule for {path}")


def random_variables(model: nn.Module, key: jax.Array) -> Variables:
    """Untrained variables of a model of images; the same key gives the same weights.

    The leaves are NumPy's, float32, so that nothing but the draw is compiled.
    """
    shapes = traverse_util.flatten_dict(variable_shapes(model), sep="/")
    rules = {path: _rule(path, leaf.shape) for path, leaf in shapes.items()}
    total = sum(leaf.size for path, leaf in shapes.items() if rules[path][1])
    # Cut at two deviations; dividing by 0.88 gives the cut distribution a deviation of one.
    normal = np.asarray(jax.random.truncated_normal(key, -2.0, 2.0, (total,))) / 0.87962566
    flat, start = {}, 0
    for path, leaf in sorted(shapes.items()):
        mean, deviation = rules[path]
        flat[path] = np.full(leaf.shape, mean, np.float32)
        if deviation:
            noise = normal[start : start + leaf.size].reshape(leaf.shape)
            flat[path] += np.float32(deviation) * noise
            start += leaf.size
    return traverse_util.unflatten_dict(flat, sep="/")
