"""Four full-size training steps against the published code's; needs 20 GB of free memory."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from conversion.from_torch import sam_variables, stlm_variables
from conversion.names import torch_name
from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.train_state import create_train_state
from stlm_jax.train_step import make_apply_fn, make_gradient_fn, teacher_features

pytestmark = pytest.mark.slow

NEAR_ZERO = 1e-5  # a gradient's norm; the median is 0.04


def test_losses_gradients_and_parameter_deltas_of_four_steps(golden):
    config = default()
    config.teacher.name = "mobile_sam"
    model, teacher = build_stlm(config), build_sam("mobile_sam")

    def tensors(layout, seed):
        return golden.state_dict(golden.load_manifest(layout), seed)

    teacher_variables = sam_variables(tensors("mobile_sam", 3), teacher)
    initial = stlm_variables(tensors("stlm_twostream", 0), tensors("stlm_segmentation", 0), model)
    state = create_train_state(config, model, jax.random.key(0)).replace(**initial)
    # In three programs: the targets' memory is free again when the gradients are computed.
    targets_fn = jax.jit(functools.partial(teacher_features, teacher))
    gradient_fn, apply = jax.jit(make_gradient_fn(model)), jax.jit(make_apply_fn(config))
    deltas, norms = (
        json.loads((golden.folder / f"{name}.json").read_text())
        for name in ("train_parameter_deltas_after4", "train_gradient_norms_step0")
    )
    actual = []
    for step in range(4):
        clean, texture, mask = (
            golden.image(1024, 1024, base + step, batch=2) for base in (100, 200, 300)
        )
        mask = mask[..., :1] > 160
        pseudo = np.where(mask, texture, clean)
        targets = targets_fn(teacher_variables, pseudo, clean)
        gradients, batch_stats, metrics = gradient_fn(state, targets, pseudo, mask[..., 0])
        if step == 0:
            compare_norms(gradients, norms, norms, 1e-3)
        state = apply(state, gradients, batch_stats)
        actual.append([float(metrics[k]) for k in ("cosine", "focal", "l1", "loss")])
    with np.load(golden.folder / "train_losses.npz") as expected:
        np.testing.assert_allclose(actual[0], expected["losses"][0], rtol=1e-4)
        np.testing.assert_allclose(actual, expected["losses"], rtol=1e-2)
    changes = jax.tree.map(
        lambda after, before: np.asarray(after, np.float64) - before,
        state.params,
        initial["params"],
    )
    # Adam turns a gradient that is rounding noise into a step like any other.
    compare_norms(changes, deltas, norms, 0.05)


def compare_norms(tree, expected, gradient_norms, tolerance):
    """Relative error of every tensor's norm, but where the gradient is rounding noise."""
    differing, compared = {}, 0
    for path, leaf in traverse_util.flatten_dict(tree).items():
        part = "segmentation" if path[0] == "segmentation" else "twostream"
        name = f"{part}/{torch_name(path).removeprefix('segmentation.')}"
        if gradient_norms.get(name, 0.0) < NEAR_ZERO:
            continue
        compared += 1
        actual = float(np.linalg.norm(np.asarray(leaf, np.float64)))
        if abs(actual - expected[name]) > tolerance * expected[name]:
            differing[name] = (actual, expected[name])
    assert compared > 300
    assert not differing
