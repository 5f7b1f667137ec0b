"""Four full-size training steps against the published code's. Needs over 20 GB of memory."""

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
from stlm_jax.train_step import make_update

pytestmark = pytest.mark.slow


def test_losses_and_parameter_deltas_of_four_steps(golden):
    config = default()
    config.teacher.name = "mobile_sam"
    model, teacher = build_stlm(config), build_sam("mobile_sam")

    def tensors(layout, seed):
        return golden.state_dict(golden.load_manifest(layout), seed)

    teacher_variables = sam_variables(tensors("mobile_sam", 3), teacher)
    initial = stlm_variables(tensors("stlm_twostream", 0), tensors("stlm_segmentation", 0), model)
    state = create_train_state(config, model, jax.random.key(0)).replace(**initial)
    update = jax.jit(make_update(config, model, teacher))
    actual = []
    for step in range(4):
        clean, texture, mask = (
            golden.image(1024, 1024, base + step, batch=2) for base in (100, 200, 300)
        )
        mask = mask[..., :1] > 160
        pseudo = np.where(mask, texture, clean)
        state, metrics = update(state, teacher_variables, clean, pseudo, mask[..., 0])
        actual.append([float(metrics[k]) for k in ("cosine", "focal", "l1", "loss")])
    with np.load(golden.folder / "train_losses.npz") as expected:
        np.testing.assert_allclose(actual[0], expected["losses"][0], rtol=1e-4)
        np.testing.assert_allclose(actual, expected["losses"], rtol=1e-2)
    deltas, norms = (
        json.loads((golden.folder / f"{name}.json").read_text())
        for name in ("train_parameter_deltas_after4", "train_gradient_norms_step0")
    )
    compare_deltas(initial["params"], state.params, deltas, norms)


def compare_deltas(before, after, expected, gradient_norms):
    """‖Δ‖ of every tensor; Adam turns gradients that are rounding noise into arbitrary steps."""
    before, after = (traverse_util.flatten_dict(tree) for tree in (before, after))
    differing, compared = {}, 0
    for path, start in before.items():
        part = "segmentation" if path[0] == "segmentation" else "twostream"
        name = f"{part}/{torch_name(path).removeprefix('segmentation.')}"
        if 0 < gradient_norms.get(name, 0.0) < 1e-5:
            continue
        compared += 1
        actual = float(np.linalg.norm(np.asarray(after[path], np.float64) - start))
        if abs(actual - expected[name]) > 0.05 * expected[name] + 1e-6:
            differing[name] = (actual, expected[name])
    assert compared > 300
    assert not differing
