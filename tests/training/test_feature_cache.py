"""Clean features that are kept: the very numbers that were computed, close to the exact ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stlm_jax.config import default
from stlm_jax.models.build import build_sam
from stlm_jax.models.initialization import random_variables
from stlm_jax.training.feature_cache import FeatureCache, abstract_part, rotates
from stlm_jax.training.placement import Rows
from stlm_jax.training.teacher import live_targets

COUNT, SIZE = 2, 64
LEVELS = tuple(jax.ShapeDtypeStruct((COUNT, 4, 4, 32), jnp.float32) for _ in range(2))
IMAGE = 2 * 4 * 4 * 32 * 2 / 2**30  # GiB of an image's features


def rows(produced):
    """What a step has produced for a group's samples, as the loop gives it, on one device."""
    return tuple(Rows([level[None]]) for level in produced)


@pytest.fixture(scope="module")
def config():
    config = default()
    config.data.rotation.ring = "small"
    return config


@pytest.fixture(scope="module")
def teacher():
    sam = build_sam("vit_tiny")
    variables = jax.tree.map(jnp.asarray, random_variables(sam, jax.random.key(3)))
    return sam, variables, jax.jit(functools.partial(live_targets, sam))


@pytest.fixture(scope="module")
def images():
    """Pseudo-anomalous images, of which the first is changed, and the clean ones."""
    clean = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    pseudo = clean.astype(np.float32)
    pseudo[0, 5:30, 7:40] = 200.5
    return pseudo, clean


def test_kept_features_are_those_of_the_step_that_made_them(config, teacher, images):
    _, variables, targets = teacher
    cache = FeatureCache(config, "disc", 5, LEVELS)
    index = np.array([4, 1])
    first, facts = targets(variables, *images, cache.of(index))
    assert float(facts["teacher_passes"]) == 1.5
    cache.take(index, rows(facts["produced"]))
    cache.take(np.array([0, 2]), rows(facts["produced"]))  # the step after, of other images
    known = cache.of(index)
    assert known["known"].all() and not cache.of(np.array([3, 0]))["known"].any()
    again, facts = targets(variables, *images, known)
    assert float(facts["teacher_passes"]) == 0.5
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_they_are_close_to_the_exact_ones_and_not_equal(config, teacher, images, relative_error):
    _, variables, targets = teacher
    exact, _ = targets(variables, *images)
    rounded, _ = targets(variables, *images, FeatureCache(config, "disc", 5, LEVELS).of([0, 1]))
    of_changed, of_others = [], []
    for ours, theirs in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        for sample in range(COUNT):
            error = relative_error(ours[sample], theirs[sample])
            # Level by level: pseudo-anomalous ones first.
            (of_changed if sample == 0 else of_others).append(error)
    assert max(of_changed + of_others) < 1e-2
    assert of_changed[:2] == [0, 0]  # the pseudo-anomalous image that was changed is not kept
    assert min(of_changed[2:] + of_others) > 1e-4


def test_where_images_turn_nothing_is_kept_or_rounded(config, teacher, images):
    _, variables, targets = teacher
    assert rotates(config, "ring") and not rotates(config, "disc")
    cache = FeatureCache(config, "ring", 5, LEVELS)
    exact, _ = targets(variables, *images)
    for _ in range(3):
        found, facts = targets(variables, *images, cache.of(np.array([4, 1])))
        cache.take(np.array([4, 1]), rows(facts["produced"]))
        assert float(facts["teacher_passes"]) == 1.5
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("budget", "room"), [(0.9, 0), (3.5, 3), (5, 5), (100, 5)])
def test_the_budget_counts_bytes(config, budget, room):
    config = config.copy_and_resolve_references()
    config.teacher.cache_gib = budget * IMAGE
    cache = FeatureCache(config, "disc", 5, LEVELS)
    assert cache.room == room
    produced = tuple(jnp.ones(x.shape, jnp.bfloat16) for x in LEVELS)
    for index in ([0, 1], [2, 3], [4, 0], [1, 2]):
        cache.take(np.array(index), rows(produced))
    known = [bool(cache.of(np.array([i, i]))["known"].any()) for i in range(5)]
    assert known == [i < room for i in range(5)]


def test_what_a_batch_gets_has_the_shapes_that_were_announced(config):
    cache = FeatureCache(config, "disc", 5, LEVELS)
    produced = tuple(jnp.full(x.shape, 3.0, jnp.bfloat16) for x in LEVELS)
    nothing = cache.of(np.array([0, 1]))
    cache.take(np.array([0, 1]), rows(produced))
    cache.take(np.array([0, 1]), rows(produced))
    something = cache.of(np.array([2, 1]))
    assert something["known"].tolist() == [False, True]
    assert float(something["levels"][1][1].min()) == 3.0
    for part in (nothing, something):
        described = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), part)
        assert described == abstract_part(LEVELS)
        assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(part))  # stacked yet
