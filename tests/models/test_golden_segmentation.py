import jax
import numpy as np
import pytest
from flax import traverse_util

from stlm_jax.models.segmentation import Segmentation
from stlm_jax.weights.names import torch_name
from stlm_jax.weights.published import convert

TOLERANCE = 1e-4
pytestmark = pytest.mark.usefixtures("highest_precision")


@pytest.fixture(scope="module")
def module(golden):
    model = Segmentation()
    tensors = golden.state_dict(golden.load_manifest("stlm_segmentation"), seed=0)
    x = np.random.default_rng(5).standard_normal((2, 512, 16, 16)) * 0.05
    x = x.astype(np.float32).transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, False))
    return model, convert(tensors, shapes), x


def test_eval_mode(golden, relative_error, module):
    model, variables, x = module
    with np.load(golden.folder / "fa_module.npz") as expected:
        actual = jax.jit(model.apply, static_argnums=2)(variables, x, False)
        assert relative_error(actual, expected["eval_out"][:, 0]) <= TOLERANCE


def test_train_mode_and_running_statistics(golden, relative_error, module):
    model, variables, x = module
    actual, changed = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]))(
        variables, x
    )
    statistics = traverse_util.flatten_dict(changed["batch_stats"])
    with np.load(golden.folder / "fa_module.npz") as expected:
        assert relative_error(actual, expected["train_out"][:, 0]) <= TOLERANCE
        names = {f"after_train/{torch_name(path)}": path for path in statistics}
        assert set(names) == {name for name in expected.files if name.startswith("after_train/")}
        for name, path in names.items():
            assert relative_error(statistics[path], expected[name]) <= TOLERANCE, name
