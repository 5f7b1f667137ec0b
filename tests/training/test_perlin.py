"""Perlin noise against a plain loop, its rotation against noise computed at the turned points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from stlm_jax.training import perlin
from stlm_jax.training.pseudo_anomaly import perlin_mask
from stlm_jax.training.shifts import quarter_turns, shift_lines

ANGLES = np.random.default_rng(0).uniform(0, 2 * np.pi, (65, 65))
_rotated = jax.jit(perlin.rotate_noise, static_argnums=1)


def fade(t):
    return 6 * t**5 - 15 * t**4 + 10 * t**3


def noise_at(angles, cells, y, x):
    """The published noise at points of 0..1 in float64."""
    y, x = y * cells[0], x * cells[1]
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    total = 0.0
    for i in (0, 1):
        for j in (0, 1):
            dy, dx = y - row - i, x - column - j
            angle = angles[row + i, column + j]
            weight = fade(1 - abs(dy)) * fade(1 - abs(dx))
            total = total + weight * (np.cos(angle) * dy + np.sin(angle) * dx)
    return 2**0.5 * total


@pytest.mark.parametrize("cells", [(1, 1), (4, 8), (64, 2)])
@pytest.mark.parametrize("size", [(64, 64), (40, 57)])
def test_noise_is_perlins(size, cells):
    height, width = size
    found = np.asarray(perlin.perlin_noise(jnp.asarray(ANGLES), cells, size, max(size)))
    # An odd margin places the image between pixels.
    y = np.arange(max(size)) - (max(size) - height) / 2
    x = np.arange(max(size)) - (max(size) - width) / 2
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    y, x = np.broadcast_arrays((y / height)[:, None], x / width)
    np.testing.assert_array_equal(found[~inside], 0)
    expected = noise_at(ANGLES, cells, y[inside], x[inside])
    np.testing.assert_allclose(found[inside], expected, atol=1e-4)
    assert found.std() > 0.1


def test_lines_move_by_their_own_amounts():
    rng = np.random.default_rng(0)
    for most in (0, 1, 6, 7, 8, 90):
        image, amounts = rng.integers(0, 256, (5, 40 + most)), rng.integers(0, most + 1, 5)
        expected = np.stack([row[k : k + 40] for row, k in zip(image, amounts, strict=True)])
        rows = shift_lines(jnp.asarray(image), jnp.asarray(amounts), -1, most)
        np.testing.assert_array_equal(rows, expected)
        columns = shift_lines(jnp.asarray(image.T), jnp.asarray(amounts), -2, most)
        np.testing.assert_array_equal(columns, expected.T)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_numpys(turns):
    image = np.random.default_rng(0).integers(0, 256, (2, 9, 9))
    expected = np.rot90(image, turns, (1, 2))
    np.testing.assert_array_equal(quarter_turns(jnp.asarray(image), turns), expected)


@pytest.mark.parametrize("slope", [-0.7, 0.3, 0.0])
@pytest.mark.parametrize("length", [20, 32, 61])
def test_a_shear_is_catmull_and_roms_interpolation_of_each_line(slope, length):
    image = np.random.default_rng(0).normal(size=(24, 32)).astype(np.float32)
    found = perlin.shear(jnp.asarray(image), jnp.float32(slope), -1, length, 0.7)
    padded = np.pad(image, ((0, 0), (60, 60)))
    for place, line, row in zip(np.arange(24) - 11.5, padded, np.asarray(found), strict=True):
        position = np.arange(length) - (length - 1) / 2 + slope * place + 15.5 + 60
        expected = 0.0
        for k in range(-2, 4):  # the convolution kernel, by its definition
            tap = np.floor(position).astype(int) + k
            d = abs(position - tap)
            near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            expected = expected + np.where(d < 1, near, np.where(d < 2, far, 0)) * line[tap]
        np.testing.assert_allclose(row, expected, atol=2e-4)
    columns = perlin.shear(jnp.asarray(image.T), jnp.float32(slope), -2, length, 0.7)
    np.testing.assert_allclose(columns, found.T, atol=1e-5)


@pytest.mark.parametrize("degrees", [-90, -71, -45.1, -20, 0, 3, 44.9, 60, 90])
@pytest.mark.parametrize("size", [(128, 128), (64, 97)])
def test_rotated_noise_is_noise_at_the_turned_points(size, degrees):
    cells, (height, width), angle = (8, 8), size, np.deg2rad(degrees)
    noise = perlin.perlin_noise(jnp.asarray(ANGLES), cells, size, max(size))
    found = np.asarray(_rotated(noise, size, jnp.float32(angle)))
    y, x = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    y, x = np.sin(angle) * x + np.cos(angle) * y, np.cos(angle) * x - np.sin(angle) * y
    y, x = y + (height - 1) / 2, x + (width - 1) / 2
    within = [(p > 3) & (p < n - 4) for p, n in ((y, height), (x, width))]
    inside = within[0] & within[1]
    expected = noise_at(ANGLES, cells, y[inside] / height, x[inside] / width)
    difference = abs(found[inside] - expected)
    assert difference.mean() < 2e-3 and difference.max() < 0.03
    outside = (y < -8) | (y > height + 7) | (x < -8) | (x > width + 7)
    np.testing.assert_array_equal(found[outside], 0)


def test_masks_are_what_scipy_makes_of_the_same_draws():
    """As published: noise, bilinear rotation, threshold."""
    make, differing = jax.jit(lambda key: perlin_mask(key, (128, 128))), []
    for key in jax.random.split(jax.random.key(3), 20):
        lattice, directions, turn = jax.random.split(key, 3)
        cells = 2 ** np.asarray(jax.random.randint(lattice, (2,), 0, 6))
        angles = np.asarray(jax.random.uniform(directions, (65, 65), maxval=2 * np.pi))
        angle = float(jax.random.uniform(turn, minval=-np.pi / 2, maxval=np.pi / 2))
        y, x = np.mgrid[:128, :128] / 128
        noise = noise_at(angles, cells, y, x)
        turned = ndimage.rotate(noise, np.rad2deg(angle), reshape=False, order=1)
        differing.append((np.asarray(make(key)) != (turned > 0.5)).mean())
    assert np.mean(differing) < 0.005
