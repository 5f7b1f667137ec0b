"""Parts of the model that take no part: against formulas by hand, and what must not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stlm_jax.config import check, default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import build_stlm
from stlm_jax.models.components import Components, unpublished
from stlm_jax.models.initialization import random_variables, variable_shapes
from stlm_jax.models.segmentation import aggregate, cosine_distance_map
from stlm_jax.models.stlm import Prediction
from stlm_jax.runtime.errors import UserError
from stlm_jax.training.losses import reduce_mask
from stlm_jax.training.step import loss_terms

SIDE = 32
CASES = {
    "plain": {"streams": "plain"},
    "denoising": {"streams": "denoising"},
    "level1": {"levels": "1"},
    "level2": {"levels": "2"},
    "cosine": {"fa": False},
    "cosine2": {"fa": False, "levels": "2"},
}


def configured(**student):
    config = default()
    config.image_size, config.remat = SIDE, "none"
    config.teacher.name, config.student.encoder = "vit_tiny", "tiny_vit_test"
    config.student.segmentation_channels = 8
    config.student.update(student)
    check(config)
    return config


@functools.cache
def variables(decoder="shared"):
    return random_variables(build_stlm(configured(decoder=decoder)), jax.random.key(0))


IMAGE = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


@functools.cache
def dynamic():
    """The model whose parts are arrays, compiled once for all cases."""
    model = build_stlm(configured())
    return jax.jit(lambda variables, parts: model.apply(variables, IMAGE, components=parts))


def run(variables, student):
    parts = Components(*map(jnp.bool_, Components.of(configured(**student).student)))
    return jax.device_get(dynamic()(variables, parts))


def unit(x):
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


# --- by hand ---


def streams():
    rng = np.random.default_rng(1)
    return [tuple(rng.standard_normal((2, 3, 3, 5)).astype(np.float32) for _ in "12") for _ in "pd"]


def test_what_fa_sees_by_hand():
    plain, denoising = streams()
    p, d = ([unit(x) for x in features] for features in (plain, denoising))
    nothing = np.zeros_like(p[0])
    expected = {
        "plain": [-p[0], -p[1]],
        "denoising": [-d[0], -d[1]],
        "level1": [-p[0] * d[0], nothing],
        "level2": [nothing, -p[1] * d[1]],
    }
    for name, levels in expected.items():
        parts = Components.of(configured(**CASES[name]).student)
        for given in (parts, Components(*map(jnp.bool_, parts))):
            found = aggregate(plain, denoising, given)
            np.testing.assert_allclose(found, np.concatenate(levels, -1), atol=1e-6, err_msg=name)


def test_the_map_without_fa_is_of_the_levels_that_take_part():
    plain, denoising = streams()
    each = [1 - (unit(p) * unit(d)).sum(-1) for p, d in zip(plain, denoising, strict=True)]
    for levels, expected in (((True, False), each[0]), ((False, True), each[1])):
        found = cosine_distance_map(plain, denoising, levels)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(cosine_distance_map(plain, denoising), each[0] * each[1], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_losses_are_of_what_takes_part(name):
    plain, denoising = streams()
    targets = tuple(reversed(streams()))
    maps = np.random.default_rng(2).uniform(0.1, 0.9, (2, 3, 3)).astype(np.float32)
    mask = np.zeros((2, 48, 48), np.float32)
    mask[0, 8:40, 8:40] = 1
    hyper = {"cosine_weight": 0.5, "focal_weight": 2.0, "l1_weight": 3.0, "focal_gamma": 4.0}
    student = CASES[name]
    parts = Components.of(configured(**student).student)
    found = loss_terms(Prediction(plain, denoising, maps), targets, mask, hyper, parts)
    terms = {
        (stream, level): np.mean(1 - (unit(x[level]) * unit(t[level])).sum(-1))
        for stream, x, t in zip(("plain", "denoising"), (plain, denoising), targets, strict=True)
        for level in (0, 1)
    }
    guided = [
        value
        for (stream, level), value in terms.items()
        if student.get("streams", stream) == stream
        and student.get("levels", str(level + 1)) == str(level + 1)
    ]
    total = 0.5 * sum(guided)
    if student.get("fa", True):
        target = np.asarray(reduce_mask(mask, (3, 3)))
        right = maps * target + (1 - maps) * (1 - target)
        focal = np.mean(-np.log(right) * (1 - right) ** 4)
        total += 2 * focal + 3 * np.abs(maps - target).mean()
    assert len(guided) == {"cosine2": 2, "cosine": 4}.get(name, 2)
    assert float(found["loss"]) == pytest.approx(total, rel=1e-5)


# --- of the whole model ---


def changed(variables, *modules):
    params = {
        name: jax.tree.map(lambda x: x + 0.1, tree) if name in modules else tree
        for name, tree in variables["params"].items()
    }
    return {**variables, "params": params}


@pytest.mark.parametrize(
    ("name", "without", "with_it"),
    [
        ("plain", "encoderS", "encoderT"),
        ("denoising", "encoderT", "encoderS"),
        ("level1", "model", "encoderS"),
        ("cosine", "segmentation", "model"),
        ("cosine2", "segmentation", "encoderT"),
    ],
)
def test_the_map_does_not_depend_on_what_takes_no_part(name, without, with_it):
    before = run(variables(), CASES[name]).map
    np.testing.assert_array_equal(run(changed(variables(), without), CASES[name]).map, before)
    assert not np.array_equal(run(changed(variables(), with_it), CASES[name]).map, before)


@pytest.mark.parametrize("name", ["cosine", "cosine2"])
def test_without_fa_the_map_is_the_distances_in_0_to_1(name):
    found = run(variables(), CASES[name])
    levels = (True, True) if name == "cosine" else (False, True)
    expected = cosine_distance_map(found.plain, found.denoising, levels) / 2 ** sum(levels)
    np.testing.assert_allclose(found.map, expected, rtol=1e-6)


def test_a_part_as_an_array_is_the_part_as_a_constant():
    config = configured(streams="denoising", levels="2")
    constant = jax.jit(build_stlm(config).apply)(variables(), IMAGE)
    found = run(variables(), {"streams": "denoising", "levels": "2"})
    np.testing.assert_allclose(found.map, constant.map, atol=1e-6)


def flops(**student):
    config = configured(**student)
    model = build_stlm(config)
    predict = jax.jit(make_predict_fn(config, model), static_argnums=2)
    lowered = predict.lower(variable_shapes(model), IMAGE, (SIDE, SIDE))
    assert ("map_without_fa" in lowered.out_info) == (not student)  # one map, else two
    return lowered.compile().cost_analysis()["flops"]


def test_what_takes_no_part_is_not_computed_in_prediction():
    whole = flops()
    assert flops(streams="plain") < 0.75 * whole


@pytest.mark.slow
def test_without_fa_its_width_costs_nothing():
    widths = [flops(fa=False, segmentation_channels=channels) for channels in (8, 32)]
    assert widths[0] == widths[1]


def test_separate_decoders_of_equal_weights_are_the_shared_one():
    own = variables("separate")
    assert {"model", "modelS"} <= own["params"].keys()
    equal = {**own, "params": {**own["params"], "modelS": own["params"]["model"]}}
    shared = {**own, "params": {k: v for k, v in equal["params"].items() if k != "modelS"}}
    apply = jax.jit(build_stlm(configured(decoder="separate")).apply)
    found, expected = apply(equal, IMAGE), run(shared, {})
    np.testing.assert_allclose(found.map, expected.map, atol=1e-5)
    moved = apply(changed(equal, "modelS"), IMAGE)
    np.testing.assert_array_equal(moved.plain[1], found.plain[1])
    assert not np.allclose(moved.denoising[1], found.denoising[1], atol=1e-3)


def test_without_fa_both_streams_are_needed():
    with pytest.raises(UserError, match="student.fa=False: .*streams must be both, not plain"):
        configured(fa=False, streams="plain")


def test_what_published_code_does_not_know_is_named():
    assert unpublished(configured().student) == {}
    assert unpublished(configured(levels="2", decoder="separate").student) == {
        "decoder": "separate",
        "levels": "2",
    }
