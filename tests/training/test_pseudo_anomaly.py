"""The generator's statistics against those measured on the published one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from stlm_jax.training import pseudo_anomaly as pa

SETTINGS = dict(
    clean_probability=0.5,
    beta_min=0.0,
    beta_max=0.8,
    perlin_min_exponent=0,
    perlin_max_exponent=5,
    perlin_threshold=0.5,
    visible_difference=0.0,
)


@pytest.fixture(scope="module")
def samples():
    """2000 samples of one image at 128 px; the images themselves of the first 400."""
    image = jnp.full((128, 128, 3), 50, jnp.uint8)
    textures = jnp.full((2, 128, 128, 3), jnp.array([100, 200], jnp.uint8)[:, None, None, None])
    make = jax.jit(jax.vmap(lambda key: pa.pseudo_anomaly(key, image, textures, SETTINGS)))
    parts = []
    for index in range(10):
        part = make(jax.random.split(jax.random.key(index), 200))
        images = np.asarray(part.image)[: 200 if index < 2 else 0]
        parts.append((images, np.asarray(part.mask) > 0, np.asarray(part.beta)))
    return pa.PseudoSample(*map(np.concatenate, zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def masks():
    """2000 Perlin masks at 256 px."""
    make = jax.jit(jax.vmap(lambda key: pa.perlin_mask(key, (256, 256))))
    keys = (jax.random.split(jax.random.key(i), 100) for i in range(20))
    return np.concatenate([np.asarray(make(key)) > 0 for key in keys])


def test_perlin_masks_are_as_large_and_as_often_empty_as_published(masks):
    assert 0.035 <= (masks.sum((1, 2)) == 0).mean() <= 0.06  # published 4–5 %
    assert 0.043 <= masks.mean() <= 0.053  # published 4.6–5 %


def test_about_half_of_the_samples_are_anomalous(samples):
    anomalous = samples.mask.any((1, 2)).mean()
    assert anomalous == pytest.approx(0.48, abs=0.04)


def test_beta_is_uniform(samples):
    assert 0.0 <= samples.beta.min() < 0.02 and 0.78 < samples.beta.max() <= 0.8
    assert samples.beta.mean() == pytest.approx(0.4, abs=0.02)
    assert samples.beta.std() == pytest.approx(0.8 / 12**0.5, abs=0.02)


def test_blend_changes_only_what_the_mask_covers(samples):
    for image, mask, beta in zip(*samples, strict=False):
        assert not (image[~mask] != 50).any()
        values = np.unique(image[mask])
        if values.size:
            candidates = [(1 - beta) * t + beta * 50 for t in (100, 200)]
            assert np.isclose(candidates, values[:, None], rtol=1e-5).any()


def test_settings_may_be_traced_and_differ_between_members():
    image, textures = jnp.zeros((32, 32, 3), jnp.uint8), jnp.full((1, 32, 32, 3), 9, jnp.uint8)
    shares = jnp.array([0.0, 1.0])

    def share_of_clean(clean_probability):
        keys = jax.random.split(jax.random.key(1), 64)
        settings = SETTINGS | {"clean_probability": clean_probability}
        masks = jax.vmap(lambda k: pa.pseudo_anomaly(k, image, textures, settings).mask)(keys)
        return (~masks.any((1, 2))).mean()

    never, always = jax.jit(jax.vmap(share_of_clean))(shares)
    assert never < 0.3 and always == 1.0


@pytest.fixture(scope="module")
def noisy():
    """Samples of one noisy image, made by one program, as a function of what counts as visible."""
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (96, 96, 3)), jnp.uint8)
    textures = jnp.asarray(rng.integers(0, 256, (3, 96, 96, 3)), jnp.uint8)
    keys = jax.random.split(jax.random.key(6), 20)

    @jax.jit
    def make(difference):
        settings = SETTINGS | {"visible_difference": difference, "clean_probability": 0.0}
        return jax.vmap(lambda key: pa.pseudo_anomaly(key, image, textures, settings))(keys)

    return np.asarray(image, np.float32), lambda difference: jax.device_get(make(difference))


def test_mask_keeps_what_is_near_a_visible_change(noisy):
    image, make = noisy
    whole, seen = make(0.0), make(150.0)
    np.testing.assert_array_equal(whole.image, seen.image)
    change = np.abs(whole.image - image).max(-1)
    # Exactly so many pixels around, and none across the border between two images.
    near = maximum_filter(change, size=(1, 9, 9), mode="constant") > 150
    np.testing.assert_array_equal(seen.mask, whole.mask * near)
    assert 0.2 * whole.mask.sum() < seen.mask.sum() < 0.8 * whole.mask.sum()


def test_published_mask_covers_what_cannot_be_seen():
    image = jnp.full((64, 64, 3), 9, jnp.uint8)

    def area(difference):
        settings = SETTINGS | {"visible_difference": difference, "clean_probability": 0.0}
        keys = jax.random.split(jax.random.key(1), 20)
        make = jax.vmap(lambda key: pa.pseudo_anomaly(key, image, image[None], settings).mask)
        return make(keys).sum()

    assert area(0.0) > 0 and area(1.0) == 0


def test_same_key_same_sample():
    image = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    textures = jnp.full((3, 32, 32, 3), 7, jnp.uint8)
    a, b = (pa.pseudo_batch(jax.random.key(3), image, textures, SETTINGS) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    other = pa.pseudo_batch(jax.random.key(4), image, textures, SETTINGS)
    assert not np.array_equal(a.beta, other.beta)


def test_each_sample_of_a_batch_has_the_texture_that_its_key_draws():
    images = jnp.zeros((6, 64, 64, 3), jnp.uint8)
    textures = jnp.asarray(np.random.default_rng(0).integers(1, 256, (5, 64, 64, 3)), jnp.uint8)
    settings = SETTINGS | {"clean_probability": 0.0, "beta_max": 0.0}
    batch = jax.jit(lambda key: pa.pseudo_batch(key, images, textures, settings))(jax.random.key(2))
    drawn = []
    for key, image, mask in zip(jax.random.split(jax.random.key(2), 6), *batch[:2], strict=True):
        drawn.append(int(jax.random.randint(jax.random.split(key, 4)[2], (), 0, 5)))
        np.testing.assert_array_equal(image, textures[drawn[-1]] * mask[..., None])
        assert mask.any() or not image.any()
    assert len(set(drawn)) > 1 and batch.mask.any((1, 2)).sum() > 3
