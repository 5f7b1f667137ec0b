"""Sizes other than SAM's 1024 pixels, against naive re-computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stlm_jax.models import resize
from stlm_jax.models.attention import merge_windows, partition_windows
from stlm_jax.models.build import SAM_VARIANTS, build_sam
from stlm_jax.models.image_encoder import relative_positions
from stlm_jax.models.initialization import random_variables
from stlm_jax.models.layers import _grouped_depthwise, _shifted_depthwise


@pytest.mark.parametrize("name", ["vit_tiny", "demo"])
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (80, 112)])
def test_features_have_a_sixteenth_of_the_image(name, size):
    sam = build_sam(name)
    variables = random_variables(sam, jax.random.key(0))
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    for feature in jax.jit(sam.apply)(variables, image):
        assert feature.shape == (2, size[0] // 16, size[1] // 16, SAM_VARIANTS[name].channels)
        assert feature.dtype == jnp.float32
        assert np.isfinite(feature).all()


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (30, 7)])
@pytest.mark.parametrize("original", [(8, 8), (16, 11)])
def test_bilinear_is_torchs(size, original):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, *original, 3))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), size=size, mode="bilinear", align_corners=False
    )
    actual = np.asarray(resize.resize_bilinear(jnp.asarray(x, jnp.float32), size)).transpose(
        0, 3, 1, 2
    )
    np.testing.assert_allclose(actual, expected.numpy(), atol=2e-6)


def test_relative_positions_interpolate_as_published():
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).standard_normal((27, 4))
    size = 6
    resized = (
        torch.nn.functional.interpolate(
            torch.from_numpy(table.T[None]), size=2 * size - 1, mode="linear"
        )[0]
        .numpy()
        .T
    )
    actual = relative_positions(jnp.asarray(table, jnp.float32), size)
    for query in range(size):
        for key in range(size):
            np.testing.assert_allclose(
                actual[query, key], resized[query - key + size - 1], atol=2e-6
            )


@pytest.mark.parametrize("size", [(14, 14), (10, 17), (3, 3)])
def test_windows_go_together_again(size):
    x = jnp.arange(2 * size[0] * size[1] * 3.0).reshape(2, *size, 3)
    windows, padded = partition_windows(x, 7)
    rows, columns = -(-size[0] // 7), -(-size[1] // 7)
    assert windows.shape == (2 * rows * columns, 49, 3)
    np.testing.assert_array_equal(merge_windows(windows, 7, padded, size), x)
    np.testing.assert_array_equal(windows[0].reshape(7, 7, 3)[:3, :3], x[0, :3, :3])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 6)])
def test_both_depthwise_lowerings_are_the_same(stride, size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, 5)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 1, 5)), jnp.float32)

    def of(lowering):
        return jax.value_and_grad(
            lambda x, k: jnp.sin(lowering(x, k, stride)).sum(), argnums=(0, 1)
        )(x, kernel)

    for actual, expected in zip(
        jax.tree.leaves(of(_shifted_depthwise)),
        jax.tree.leaves(of(_grouped_depthwise)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
