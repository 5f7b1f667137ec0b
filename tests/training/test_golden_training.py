"""Four full-size training steps against the published code's; they need 13 GB of free memory.

Why the bounds are not 1e-3 for every gradient and 1e-2 for every loss: the same four steps were
computed once in float64, where rounding is nothing. The published float32 results are off from
those by up to 2.5e-3 in the gradients' norms (10 of 531 above 1e-3, median 1.6e-4) and by 5.5e-2
in the fourth step's focal loss; ours by up to 1.6e-3 (12 above 1e-3, median 1.3e-4) and 1.5e-2.

The bounds leave little room beyond that, and XLA's order of sums depends on the processor. On one
with AVX-512 two were missed: 21 norms (median 2.8e-4) and 27 changes above theirs, for 15 to be
allowed. The same steps with XLA's grouped convolutions gave 16 and 13 there. To be settled by
taking ours in float64, which does not depend on the processor but needs 20 GB.
"""

import functools
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from golden_vectors import sam_variables, stlm_variables, weights_of

from stlm_jax.config import default
from stlm_jax.models import tiny_vit
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import create_train_state
from stlm_jax.training.step import apply, gradients, teacher_features
from stlm_jax.weights.names import torch_name

pytestmark = pytest.mark.slow

NEAR_ZERO = 1e-5  # a gradient's norm; the median is 0.04


# XLA's default order on CPU favours concurrency and needs twice the memory.
MEMORY_FIRST = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def train_four_steps(folder):
    """Losses before each update, gradients of the first, what four updates changed.

    In a process of its own: it changes the libraries, and its memory is free again afterwards.
    """
    for part in ("PatchEmbed", "MBConv", "PatchMerging", "TinyViTBlock"):  # to fit into memory
        setattr(tiny_vit, part, nn.remat(getattr(tiny_vit, part), static_argnums=(2,)))
    golden = weights_of(folder)
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
    gradient_fn = jax.jit(functools.partial(gradients, model))
    apply_fn = jax.jit(functools.partial(apply, make_optimizer(config.optimizer)))
    losses, first = [], None
    for step in range(4):
        clean, texture, mask = (
            golden.image(1024, 1024, base + step, batch=2) for base in (100, 200, 300)
        )
        mask = mask[..., :1] > 160
        pseudo = np.where(mask, texture, clean)
        targets = targets_fn(teacher_variables, pseudo, clean)
        grads, batch_stats, metrics = gradient_fn(state, targets, pseudo, mask[..., 0])
        first = first or jax.device_get(grads)
        state = apply_fn(state, grads, batch_stats)
        losses.append([float(metrics[name]) for name in ("cosine", "focal", "l1", "loss")])
    changes = jax.tree.map(
        lambda after, before: np.asarray(after, np.float64) - before,
        state.params,
        initial["params"],
    )
    return losses, first, changes


@pytest.fixture(scope="module")
def four_steps(golden):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {MEMORY_FIRST}")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(train_four_steps, golden.folder).result()


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


def test_each_loss_of_four_steps(four_steps, expected_losses):
    # As near as the published values are to those of float64: 5.5e-2.
    np.testing.assert_allclose(four_steps[0], expected_losses, rtol=6e-2)


def share_within(errors, tolerance):
    return np.mean([error <= tolerance for error in errors.values()])


def test_parameter_deltas(golden, four_steps, gradient_norms):
    # Adam makes a full step of any gradient, so that float32's rounding grows from step to step.
    expected = json.loads((golden.folder / "train_parameter_deltas_after4.json").read_text())
    errors = relative_errors(four_steps[2], expected, gradient_norms)
    assert share_within(errors, 0.05) >= 0.97 and max(errors.values()) <= 0.2


def test_most_gradient_norms(four_steps, gradient_norms):
    errors = relative_errors(four_steps[1], gradient_norms, gradient_norms)
    assert share_within(errors, 1e-3) >= 0.97 and max(errors.values()) <= 5e-3
