import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from stlm_jax.config import default
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.training.optimizer import (
    RULES,
    group_of,
    label_parameters,
    make_optimizer,
    rate_factor,
)


def parameter_paths():
    return traverse_util.flatten_dict(variable_shapes(build_stlm(default()))["params"], sep="/")


def test_every_parameter_has_one_rule_and_every_rule_a_parameter():
    groups = {group_of(path) for path in parameter_paths()}
    assert groups == {group for _, group in RULES}


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="other/kernel matches 0"):
        group_of("other/kernel")


def test_groups_hold_the_published_parameter_counts():
    counts = dict.fromkeys(("adam", "sgd_residual", "sgd_head", "frozen"), 0)
    for path, leaf in parameter_paths().items():
        counts[group_of(path)] += leaf.size
    assert counts["frozen"] == 256
    assert counts["sgd_residual"] + counts["sgd_head"] == pytest.approx(1.870e6, rel=1e-3)
    assert counts["adam"] == pytest.approx((2 * 5.744 + 3.291) * 1e6, rel=1e-3)


def test_updates_are_torchs():
    """Three updates of one tensor in each group, with torch's own optimisers."""
    torch = pytest.importorskip("torch")
    paths = {
        "encoderT/neck/0/kernel": lambda p: torch.optim.Adam([p], lr=5e-4, betas=(0.5, 0.999)),
        "segmentation/res_0/conv1/kernel": lambda p: torch.optim.SGD(
            [p], lr=0.1, momentum=0.9, weight_decay=1e-4
        ),
        "segmentation/head_4/kernel": lambda p: torch.optim.SGD(
            [p], lr=0.01, momentum=0.9, weight_decay=1e-4
        ),
    }
    rng = np.random.default_rng(0)
    start = {path: rng.standard_normal((4, 3)).astype(np.float32) for path in paths}
    gradients = [
        {path: rng.standard_normal((4, 3)).astype(np.float32) for path in paths} for _ in range(3)
    ]
    optimizer = make_optimizer(default().optimizer)
    params = traverse_util.unflatten_dict(jax.tree.map(jnp.asarray, start), sep="/")
    state = optimizer.init(params)
    for gradient in gradients:
        gradient = traverse_util.unflatten_dict(gradient, sep="/")
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    actual = traverse_util.flatten_dict(params, sep="/")
    for path, make in paths.items():
        parameter = torch.nn.Parameter(torch.from_numpy(start[path].copy()))
        reference = make(parameter)
        for gradient in gradients:
            parameter.grad = torch.from_numpy(gradient[path])
            reference.step()
        np.testing.assert_allclose(actual[path], parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_hyperparameters_are_arrays_in_the_state():
    params = traverse_util.unflatten_dict(
        {"encoderT/neck/0/kernel": jnp.ones(3), "segmentation/res_0/x": jnp.ones(3)}, sep="/"
    )
    optimizer = make_optimizer(default().optimizer)

    def first_update(learning_rate):
        state = optimizer.init(params)
        state.inner_states["adam"].inner_state.hyperparams["learning_rate"] = learning_rate
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return updates["encoderT"]["neck"]["0"]["kernel"]

    steps = jax.jit(jax.vmap(first_update))(jnp.array([1e-3, 2e-3]))
    np.testing.assert_allclose(steps[1], 2 * steps[0], rtol=1e-6)
    assert label_parameters(params)["segmentation"]["res_0"]["x"] == "sgd_residual"


def test_rates_fall_by_a_half_cosine_or_stay():
    steps = jnp.array([0, 50, 100, 150])
    np.testing.assert_allclose(rate_factor(steps, 100.0), [1.0, 0.5, 0.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(rate_factor(steps, 0.0), 1.0)
