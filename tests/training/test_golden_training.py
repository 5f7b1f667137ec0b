"""Full-size training steps against the published code's.

Training amplifies rounding from step to step, so the first two are taken in float32, and all four
in float64, whose numbers no processor and no order of sums changes. They need 20 GB of free memory.
`docs/fidelity.md` says why the bounds are what they are, and what was measured.
"""

import json
import multiprocessing
import pathlib
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from golden_steps import save_memory, take_steps, tensors
from golden_vectors import sam_variables, stlm_variables, weights_of

from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm

pytestmark = pytest.mark.slow

NEAR_ZERO = 1e-5  # a gradient's norm; the median is 0.04


def train_two_steps(folder):
    """What `take_steps` gives, in float32.

    In a process of its own: it changes the libraries, and its memory is free again afterwards.
    """
    save_memory()
    golden = weights_of(folder)
    config = default()
    config.teacher.name = "mobile_sam"
    model, teacher = build_stlm(config), build_sam("mobile_sam")
    teacher_variables = sam_variables(tensors(golden, "mobile_sam", 3), teacher)
    pair = (tensors(golden, name, 0) for name in ("stlm_twostream", "stlm_segmentation"))
    initial = stlm_variables(*pair, model)
    return take_steps(golden, config, model, teacher, teacher_variables, initial, 2)


@pytest.fixture(scope="module")
def two_steps(golden):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train_two_steps, golden.folder).result()


@pytest.fixture(scope="module")
def in_float64(golden, tmp_path_factory):
    """What four steps in float64 give."""
    out = tmp_path_factory.mktemp("float64") / "taken.json"
    script = pathlib.Path(__file__).with_name("float64_steps.py")
    subprocess.run([sys.executable, str(script), str(golden.folder), str(out)], check=True)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def gradient_norms(golden):
    return json.loads((golden.folder / "train_gradient_norms_step0.json").read_text())


def relative_errors(tree_norms, expected, gradient_norms):
    """Of every tensor's norm, but where the gradient is rounding noise; name to error."""
    errors = {
        name: abs(norm / expected[name] - 1)
        for name, norm in tree_norms.items()
        if gradient_norms.get(name, 0.0) >= NEAR_ZERO
    }
    assert len(errors) == 531
    return errors


@pytest.fixture(scope="module")
def expected_losses(golden):
    with np.load(golden.folder / "train_losses.npz") as file:
        return file["losses"]


def share_within(errors, tolerance):
    return np.mean([error <= tolerance for error in errors.values()])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_of_the_first_steps(dtype, request, expected_losses):
    taken = request.getfixturevalue("two_steps" if dtype == "float32" else "in_float64")
    assert taken["dtypes"] == [dtype]
    np.testing.assert_allclose(taken["losses"][0], expected_losses[0], rtol=1e-4)
    np.testing.assert_allclose(taken["losses"][1], expected_losses[1], rtol=5e-3)


def test_losses_of_four_steps(in_float64, expected_losses):
    losses = np.array(in_float64["losses"])
    np.testing.assert_allclose(losses[:3, 3], expected_losses[:3, 3], rtol=5e-3)
    np.testing.assert_allclose(losses[3, 3], expected_losses[3, 3], rtol=1.1e-2)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-2)


def test_parameter_deltas(golden, in_float64, gradient_norms):
    # Adam makes a full step of any gradient, so that the published rounding grows, too.
    expected = json.loads((golden.folder / "train_parameter_deltas_after4.json").read_text())
    errors = relative_errors(in_float64["changes"], expected, gradient_norms)
    assert share_within(errors, 0.05) >= 0.97 and max(errors.values()) <= 0.1


def test_most_gradient_norms(two_steps, gradient_norms):
    errors = relative_errors(two_steps["gradients"], gradient_norms, gradient_norms)
    assert share_within(errors, 1e-3) >= 0.95 and max(errors.values()) <= 5e-3


def test_neither_is_far_from_float64(two_steps, in_float64, gradient_norms):
    for found in (two_steps["gradients"], gradient_norms):
        errors = relative_errors(found, in_float64["gradients"], gradient_norms)
        assert max(errors.values()) <= 5e-3
