"""Attention in parts and in windows against the formulas as they are published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from stlm_jax.models import attention, image_encoder, tiny_vit


def filled(module, x, seed=0):
    """Variables of a module with every tensor drawn, biases and tables too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), shapes
    )


def straightforward(variables, x, heads):
    """SAM's global attention in float64, all logits and all of the bias at once."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    count, height, width, channels = x.shape
    x = np.asarray(x, np.float64).reshape(count, height * width, channels)
    qkv = x @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    query, key, value = np.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, -1), (2, 3), (0, 2))
    place = np.arange(height * width)
    rows, columns = np.divmod(place, width)
    bias = np.zeros((count, heads, len(place), len(place)))
    for table, at, size in (("rel_pos_h", rows, height), ("rel_pos_w", columns, width)):
        offsets = at[:, None] - at[None, :] + size - 1
        bias += np.einsum("nhqd,qkd->nhqk", query, params[table][offsets])
    logits = np.einsum("nhqd,nhkd->nhqk", query, key) / np.sqrt(query.shape[-1]) + bias
    y = np.einsum("nhqk,nhkd->nqhd", scipy.special.softmax(logits, -1), value)
    return y.reshape(x.shape) @ params["proj"]["kernel"] + params["proj"]["bias"]


@pytest.mark.parametrize("most", [2**40, 2 * 2 * 36 * 9, 1])
def test_attention_in_parts_is_the_published_formula(monkeypatch, relative_error, most):
    """All queries at once, nine at a time, one at a time."""
    monkeypatch.setattr(attention, "_MOST_ON_CPU", most)
    module = image_encoder.Attention(heads=2, table_size=6)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 6, 6, 16)), jnp.float32)
    variables = filled(module, x)
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(module.apply)(variables, x)
    expected = straightforward(variables, x, 2)
    assert relative_error(np.asarray(actual).reshape(expected.shape), expected) <= 1e-6


def largest(program):
    """The most elements that a value of a program has, in the bodies of its loops too."""
    sizes = [value.aval.size for equation in program.eqns for value in equation.outvars]
    bodies = [
        body for equation in program.eqns for body in jax.core.jaxprs_in_params(equation.params)
    ]
    return max(sizes + [largest(body) for body in bodies])


@pytest.mark.parametrize("differentiate", [False, True])
def test_global_attention_never_holds_all_logits(differentiate):
    """At ViT-B's 1024 px, on the CPU and elsewhere: both are in the program."""
    heads, side = 12, 64
    module = image_encoder.Attention(heads=heads, table_size=side)
    x = jax.ShapeDtypeStruct((1, side, side, 768), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def total(variables, x):
        return module.apply(variables, x).sum()

    program = jax.make_jaxpr(jax.grad(total) if differentiate else total)(variables, x)
    assert heads * side**2 < largest(program.jaxpr) <= 2**24 < heads * side**4


@pytest.mark.parametrize("size", [(5, 9), (8, 4), (3, 2)])
def test_windows_see_the_padding_as_published(relative_error, size):
    """A map that was zero-padded before has whole windows and needs none of the module's own."""
    module = tiny_vit.Attention(heads=2, window=4)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, *size, 8)), jnp.float32)
    variables = filled(module, x)
    padded = jnp.pad(x, ((0, 0), (0, -size[0] % 4), (0, -size[1] % 4), (0, 0)))
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(module.apply)(variables, x)
        expected = jax.jit(module.apply)(variables, padded)[:, : size[0], : size[1]]
    assert relative_error(actual, expected) <= 1e-6


def test_a_bias_for_all_windows_and_its_gradient_are_torchs(relative_error):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    query, key, value, direction = rng.standard_normal((4, 5, 2, 9, 4))
    bias = rng.standard_normal((2, 9, 9))
    leaves = [torch.tensor(array, requires_grad=True) for array in (query, key, value, bias)]
    y = torch.nn.functional.scaled_dot_product_attention(*leaves[:3], attn_mask=leaves[3])
    (y * torch.tensor(direction)).sum().backward()

    def objective(query, key, value, bias):
        y = attention.softmax_attention(query, key, value, 0.5, bias)
        return (y * np.float32(direction)).sum()

    arrays = map(np.float32, (query, key, value, bias))
    gradients = jax.jit(jax.grad(objective, (0, 1, 2, 3)))(*arrays)
    for ours, leaf in zip(gradients, leaves, strict=True):
        assert relative_error(ours, leaf.grad.numpy()) <= 1e-6
