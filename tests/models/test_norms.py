"""Normalisations and their gradients against torch's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from stlm_jax.models.norms import BatchNorm, LayerNorm, gelu, in_shares

TOLERANCE = 1e-6


def drawn(shape=(3, 5, 4, 6), seed=0):
    """An activation, a direction that makes a scalar of the result, scale and bias."""
    rng = np.random.default_rng(seed)
    x, direction = 3 + 2 * rng.standard_normal(shape), rng.standard_normal(shape)
    return x, direction, 1 + 0.3 * rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])


def ours(module, x, direction, scale, bias, *arguments):
    """The result, and the gradients of scale, bias and x."""

    def objective(params, x):
        y, changed = module.apply({"params": params}, x, *arguments, mutable=["batch_stats"])
        return (y * direction).sum(), (y, changed)

    narrow = [np.float32(array) for array in (scale, bias, x)]
    params = {"scale": narrow[0], "bias": narrow[1]}
    gradients, (y, changed) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(params, narrow[2])
    return [y, gradients[0]["scale"], gradients[0]["bias"], gradients[1]], changed


def torchs(module, x, direction, scale, bias):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, requires_grad=True)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(scale))
        module.bias.copy_(torch.tensor(bias))
    y = module(leaf)
    (y * torch.tensor(direction)).sum().backward()
    return [t.detach().numpy() for t in (y, module.weight.grad, module.bias.grad, leaf.grad)]


def test_layer_norm(relative_error):
    torch = pytest.importorskip("torch")
    arrays = drawn()
    expected = torchs(torch.nn.LayerNorm(6, dtype=torch.float64), *arrays)
    for a, b in zip(ours(LayerNorm(), *arrays)[0], expected, strict=True):
        assert relative_error(a, b) <= TOLERANCE


def test_batch_norm_in_training(relative_error):
    torch = pytest.importorskip("torch")
    x, direction, scale, bias = drawn()
    module = torch.nn.BatchNorm2d(6, dtype=torch.float64)
    first = (np.moveaxis(array, -1, 1) for array in (x, direction))
    expected = torchs(module, *first, scale, bias)
    actual, changed = ours(BatchNorm(), x, direction, scale, bias, True)
    for a, b in zip(actual, expected, strict=True):
        assert relative_error(a, np.moveaxis(b, 1, -1) if b.ndim > 1 else b) <= TOLERANCE
    statistics = changed["batch_stats"]
    assert relative_error(statistics["mean"], module.running_mean.numpy()) <= TOLERANCE
    assert relative_error(statistics["var"], module.running_var.numpy()) <= TOLERANCE


def test_batch_norm_of_shares_is_that_of_a_module_on_each(relative_error):
    """As torch's DistributedDataParallel trains; what follows one another lies on one device."""
    torch = pytest.importorskip("torch")
    x, direction, scale, bias = drawn((6, 5, 4, 6))
    with in_shares(3):
        actual, changed = ours(BatchNorm(), x, direction, scale, bias, True)
    results, statistics = [], []
    for share in range(3):
        module = torch.nn.BatchNorm2d(6, dtype=torch.float64)
        mine = slice(2 * share, 2 * share + 2)
        first = (np.moveaxis(array[mine], -1, 1) for array in (x, direction))
        results.append(torchs(module, *first, scale, bias))
        statistics.append([module.running_mean.numpy(), module.running_var.numpy()])
    y, *gradients, x_gradient = zip(*results, strict=True)
    for a, b in zip((actual[0], actual[3]), (y, x_gradient), strict=True):
        assert relative_error(a, np.moveaxis(np.concatenate(b), 1, -1)) <= TOLERANCE
    for a, b in zip(actual[1:3], gradients, strict=True):
        assert relative_error(a, sum(b)) <= TOLERANCE
    for name, b in zip(("mean", "var"), zip(*statistics, strict=True), strict=True):
        assert relative_error(changed["batch_stats"][name], np.mean(b, 0)) <= TOLERANCE


def test_shares_do_not_matter_in_evaluation(relative_error):
    x, *_ = drawn()
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x, False)
    with in_shares(2):  # of three samples
        assert relative_error(module.apply(variables, x, False), x / np.sqrt(1 + 1e-5)) <= TOLERANCE


def test_gelu_and_its_derivative_are_exact():
    x = np.linspace(-9, 9, 4001)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    value, slope = jax.vmap(jax.value_and_grad(gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, x * scipy.special.ndtr(x), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(slope, scipy.special.ndtr(x) + x * density, atol=1e-6, rtol=1e-6)
