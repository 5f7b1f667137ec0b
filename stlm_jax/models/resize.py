"""Bilinear resizing as `torch.nn.functional.interpolate(align_corners=False)` does it."""

import jax
import jax.numpy as jnp
import numpy as np


def interpolation_matrix(in_size: int, out_size: int) -> np.ndarray:
    """Half-pixel linear interpolation along one axis, without antialiasing.

    The matrix is (out_size, in_size) float32, and every row of it sums to 1.
    """
    position = (np.arange(out_size) + 0.5) * (in_size / out_size) - 0.5
    position = np.clip(position, 0.0, in_size - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, in_size - 1)
    weight = position - low
    matrix = np.zeros((out_size, in_size), np.float64)
    np.add.at(matrix, (np.arange(out_size), low), 1.0 - weight)
    np.add.at(matrix, (np.arange(out_size), high), weight)
    return matrix.astype(np.float32)


def resize_bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes (N, H, W, C) to (N, *size, C), in float32, without antialiasing."""
    height, width = x.shape[1:3]
    if (height, width) == tuple(size):
        return x.astype(jnp.float32)
    rows = interpolation_matrix(height, size[0])
    columns = interpolation_matrix(width, size[1])
    x = jnp.einsum("hi,niwc->nhwc", rows, x.astype(jnp.float32), precision="highest")
    return jnp.einsum("wi,nhic->nhwc", columns, x, precision="highest")


def resize_linear(x: jax.Array, length: int) -> jax.Array:
    """Resizes the first axis of (L, C) to `length`, as torch's 1-D linear interpolation does."""
    if x.shape[0] == length:
        return x
    return jnp.einsum("oi,ic->oc", interpolation_matrix(x.shape[0], length), x, precision="highest")
