"""1×1 convolutions as products, against torch's in float64."""

import jax
import numpy as np
import pytest

from stlm_jax.models.layers import PointwiseConv
from stlm_jax.models.norms import for_export


@pytest.mark.parametrize(("channels", "features"), [(4, 12), (12, 4)])
@pytest.mark.parametrize("exported", [False, True])
def test_value_and_gradients(channels, features, exported, relative_error):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 7, channels))
    kernel = rng.standard_normal((1, 1, channels, features))
    direction = rng.standard_normal((2, 5, 7, features))
    leaf = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    y = torch.nn.functional.conv2d(leaf, weight)
    (y * torch.tensor(direction.transpose(0, 3, 1, 2))).sum().backward()

    def objective(kernel, x):
        y = PointwiseConv(features).apply({"params": {"kernel": kernel}}, x)
        return (y * np.float32(direction)).sum(), y

    gradient = jax.grad(objective, (0, 1), has_aux=True)
    if exported:
        with for_export():
            (of_kernel, of_x), ours = gradient(np.float32(kernel), np.float32(x))
    else:
        (of_kernel, of_x), ours = jax.jit(gradient)(np.float32(kernel), np.float32(x))
    assert relative_error(ours, y.detach().numpy().transpose(0, 2, 3, 1)) <= 1e-6
    assert relative_error(of_x, leaf.grad.numpy().transpose(0, 2, 3, 1)) <= 1e-6
    assert relative_error(of_kernel, weight.grad.numpy().transpose(2, 3, 1, 0)) <= 1e-6
