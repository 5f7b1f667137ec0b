"""Four full-size training steps against the published code's; they need 18 GB of free memory."""

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


@pytest.fixture(scope="module")
def four_steps(golden):
    """Losses before each update, gradients of the first, what four updates changed."""
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
    losses, first = [], None
    for step in range(4):
        clean, texture, mask = (
            golden.image(1024, 1024, base + step, batch=2) for base in (100, 200, 300)
        )
        mask = mask[..., :1] > 160
        pseudo = np.where(mask, texture, clean)
        targets = targets_fn(teacher_variables, pseudo, clean)
        gradients, batch_stats, metrics = gradient_fn(state, targets, pseudo, mask[..., 0])
        first = first or jax.device_get(gradients)
        state = apply(state, gradients, batch_stats)
        losses.append([float(metrics[name]) for name in ("cosine", "focal", "l1", "loss")])
    changes = jax.tree.map(
        lambda after, before: np.asarray(after, np.float64) - before,
        state.params,
        initial["params"],
    )
    return losses, first, changes


@pytest.fixture(scope="module")
def gradient_norms(golden):
    return json.loads((golden.folder / "train_gradient_norms_step0.json").read_text())


def relative_errors(tree, expected, gradient_norms):
    """Of every tensor's norm, but where the gradient is rounding noise; name to error."""
    errors = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        part = "segmentation" if path[0] == "segmentation" else "twostream"
        name = f"{part}/{torch_name(path).removeprefix('segmentation.')}"
        if gradient_norms.get(name, 0.0) >= NEAR_ZERO:
            norm = float(np.linalg.norm(np.asarray(leaf, np.float64)))
            errors[name] = abs(norm / expected[name] - 1)
    assert len(errors) == 531
    return errors


@pytest.fixture(scope="module")
def expected_losses(golden):
    with np.load(golden.folder / "train_losses.npz") as file:
        return file["losses"]


def test_first_losses(four_steps, expected_losses):
    np.testing.assert_allclose(four_steps[0][0], expected_losses[0], rtol=1e-4)


def test_losses_of_four_steps(four_steps, expected_losses):
    np.testing.assert_allclose(np.array(four_steps[0])[:, 3], expected_losses[:, 3], rtol=1e-2)


@pytest.mark.xfail(reason="the focal loss before the fourth update was seen to be off by 4e-2")
def test_each_loss_of_four_steps(four_steps, expected_losses):
    np.testing.assert_allclose(four_steps[0], expected_losses, rtol=1e-2)


def share_within(errors, tolerance):
    return np.mean([error <= tolerance for error in errors.values()])


def test_parameter_deltas(golden, four_steps, gradient_norms):
    # Adam makes a full step of any gradient, so that float32's rounding grows from step to step.
    expected = json.loads((golden.folder / "train_parameter_deltas_after4.json").read_text())
    errors = relative_errors(four_steps[2], expected, gradient_norms)
    assert share_within(errors, 0.05) >= 0.97 and max(errors.values()) <= 0.2


@pytest.mark.xfail(
    reason="8 of 531 norms are off by 1.0e-3 to 1.7e-3 (median 2.5e-4); which ones they are "
    "changes with the order of float32 sums"
)
def test_every_gradient_norm(four_steps, gradient_norms):
    errors = relative_errors(four_steps[1], gradient_norms, gradient_norms)
    assert not {name: error for name, error in errors.items() if error > 1e-3}


def test_most_gradient_norms(four_steps, gradient_norms):
    errors = relative_errors(four_steps[1], gradient_norms, gradient_norms)
    assert share_within(errors, 1e-3) >= 0.97 and max(errors.values()) <= 5e-3
