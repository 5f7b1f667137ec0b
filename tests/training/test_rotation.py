"""Rotation on the device against PIL and SciPy, its fill, its angles and its policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from stlm_jax.config import default
from stlm_jax.training import rotation
from stlm_jax.training.rotation import policy_numbers, rotate, rotate_batch
from stlm_jax.training.state import hyperparameters

_rotate = jax.jit(rotate)


def noise(height=41, width=41):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def policy(name):
    return policy_numbers({"default": name})


@pytest.mark.parametrize("degrees", [-5.0, -0.3, 0.01, 2.7, 5.0])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [40, 41, 300])
def test_it_is_what_pil_makes_of_a_square_image(size, turns, degrees):
    image = noise(size, size)
    expected = Image.fromarray(image).rotate(90 * turns)
    expected = expected.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(114, 114, 114))
    difference = np.asarray(_rotate(image, turns, degrees), int) - np.asarray(expected)
    assert (np.abs(difference) <= 1).all()  # a value beside a whole number is cut to either
    assert (difference != 0).mean() < 0.01


@pytest.mark.parametrize("degrees", [-4.0, 1.5])
def test_it_is_what_scipy_makes_of_an_oblong_image(degrees):
    image = noise(30, 60)
    expected = ndimage.rotate(
        image.astype(float), degrees, axes=(0, 1), reshape=False, order=1, mode="nearest"
    )
    found = np.asarray(_rotate(image, 0, degrees), float)
    inside = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(found[inside], np.floor(expected[inside] + 1e-4), atol=1)


@pytest.mark.parametrize("shape", [(33, 33), (64, 64), (24, 57)])
def test_by_nothing_the_image_is_itself(shape):
    np.testing.assert_array_equal(_rotate(noise(*shape), 0, 0.0), noise(*shape))


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_move_pixels_and_change_none(turns):
    np.testing.assert_array_equal(_rotate(noise(), turns, 0.0), np.rot90(noise(), turns))
    even = noise(64, 64)
    np.testing.assert_array_equal(_rotate(even, turns, 0.0), np.rot90(even, turns))


def test_corners_are_filled_with_114_and_nothing_else_is():
    found = np.asarray(_rotate(np.full((100, 100, 3), 200, np.uint8), 0, 5.0))
    assert set(np.unique(found)) == {114, 200}
    y, x = np.mgrid[:100, :100] - 49.5
    a = np.deg2rad(5.0)
    turned = abs(x * np.cos(a) - y * np.sin(a)), abs(x * np.sin(a) + y * np.cos(a))
    outside = np.maximum(*turned) > 50
    np.testing.assert_array_equal(found[..., 0] == 114, outside)


def recovered(name, count=400, size=65):
    """Quarter turns and degrees of many draws, read off the picture of a far dot."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    dot = 255 * np.exp(-((x - 22) ** 2 + y**2) / 8)
    image = np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, -1)
    batch = jnp.broadcast_to(image, (count, *image.shape))
    found = np.asarray(jax.jit(rotate_batch)(jax.random.key(0), batch, policy(name)))[..., 0]
    weights = np.where(found > 120, found, 0).astype(float)
    centre = [(weights * axis).sum((1, 2)) / weights.sum((1, 2)) for axis in (y, x)]
    angle = np.rad2deg(np.arctan2(-centre[0], centre[1]))
    turns = np.rint(angle / 90)
    return turns.astype(int) % 4, angle - 90 * turns


def test_small_angles_are_uniform_in_plus_minus_five_degrees():
    turns, degrees = recovered("small")
    assert (turns == 0).all()
    assert -5.2 < degrees.min() < -4.7 and 4.7 < degrees.max() < 5.2
    assert degrees.mean() == pytest.approx(0, abs=0.45)
    assert degrees.std() == pytest.approx(10 / 12**0.5, abs=0.25)


def test_right_angles_are_equally_frequent_and_small_angles_come_on_top():
    turns, degrees = recovered("right_angles")
    assert np.bincount(turns, minlength=4).min() > 70  # of 400
    assert -5.2 < degrees.min() < -4.5 and 4.5 < degrees.max() < 5.2


def test_without_a_rotation_images_are_the_same_and_its_key_is_nobody_elses():
    images = np.stack([noise(32, 32)] * 2)
    key = jax.random.key(7)
    hyper = hyperparameters(default())["rotation"]
    np.testing.assert_array_equal(rotate_batch(key, images, hyper), images)
    own = jax.random.key_data(jax.random.fold_in(key, rotation._STREAM))
    of_pseudo_anomalies = jax.random.key_data(jax.random.split(key, 4096))
    assert not (of_pseudo_anomalies == own).all(1).any()


def test_the_same_key_turns_alike_and_images_differ():
    images = np.stack([noise()] * 3)
    turn = jax.jit(rotate_batch)
    first, again, other = (
        np.asarray(turn(jax.random.key(seed), images, policy("small"))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not (first == other).all()
    assert not (first[0] == first[1]).all() and not (first[1] == first[2]).all()


def test_members_of_an_ensemble_may_have_policies_of_their_own():
    images = np.stack([noise(32, 32)] * 2)
    config = default()
    config.data.rotation.update({"wood": "small", "tile": "right_angles"})
    members = [hyperparameters(config, name)["rotation"] for name in ("pill", "wood", "tile")]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    turn = jax.vmap(rotate_batch, in_axes=(None, None, 0))
    found = np.asarray(jax.jit(turn)(jax.random.key(5), images, stacked))
    np.testing.assert_array_equal(found[0], images)
    for member, hyper in zip(found[1:], members[1:], strict=True):
        alone = np.asarray(jax.jit(rotate_batch)(jax.random.key(5), images, hyper))
        assert (np.abs(member.astype(int) - alone) <= 1).all()
        assert not (member == images).all()


def test_a_category_without_a_policy_has_the_default_one():
    config = default()
    config.data.rotation.update({"wood": "right_angles"})
    assert float(hyperparameters(config, "wood")["rotation"]["right_angles"]) == 1
    assert float(hyperparameters(config, "pill")["rotation"]["degrees"]) == 0
    config.data.rotation.default = "small"
    assert float(hyperparameters(config, "pill")["rotation"]["degrees"]) == 5
    assert float(hyperparameters(config)["rotation"]["degrees"]) == 5
