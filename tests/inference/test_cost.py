"""What a prediction is said to cost."""

import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stlm_jax.config import default
from stlm_jax.inference.cost import Cost, count_parameters, flops_of, median_ms
from stlm_jax.inference.predictor import Predictor
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes


def test_parameters_of_the_published_model():
    """16.65 M by the specification; the constants of the prompt encoder are 1,5 thousand more."""
    variables = variable_shapes(build_stlm(default()))
    assert count_parameters(variables) == pytest.approx(2 * 5.744e6 + 3.291e6 + 1.870e6, rel=3e-4)
    assert count_parameters({"params": {"a": np.zeros((2, 3)), "b": {"c": np.zeros(4)}},
                             "batch_stats": {"d": np.zeros(9)}}) == 10  # fmt: skip


def test_arithmetic_of_the_published_model():
    """176 GFLOP by the specification, which counts products; the compiler counts sums too.

    The published windows' padding goes through the projections, ours does not.
    """
    spared = 0
    for blocks, side, window, channels in ((2, 128, 7, 128), (6, 64, 14, 160), (2, 64, 7, 320)):
        padding = (side + -side % window) ** 2 - side**2
        spared += 2 * blocks * padding * 2 * channels * (3 + 1) * channels  # two streams
    published = 176e9 - spared
    config = default()
    config.evaluate.batch_size = 1
    predictor = Predictor(config)
    images = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.uint8)
    variables = variable_shapes(build_stlm(config))
    lowered = predictor._predict.lower(variables, images, (1024, 1024))
    assert published < lowered.cost_analysis()["flops"] < 1.15 * published


def test_arithmetic_is_the_compilers_own_count():
    compiled = jax.jit(jnp.dot).lower(np.zeros((8, 32)), np.zeros((32, 16))).compile()
    assert flops_of(compiled) == pytest.approx(2 * 8 * 32 * 16, rel=0.01)


def test_latency_is_the_median_of_the_runs():
    clock = iter([0, 1, 10, 12, 20, 29])  # runs of 1, 2 and 9 seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stlm_jax.inference.cost.time.perf_counter", lambda: next(clock))
        assert median_ms(lambda: np.zeros(1), 3) == 2000
    assert math.isnan(median_ms(lambda: np.zeros(1), 0))


def test_a_predictor_compiles_nothing_to_know_its_cost(finished_run, caplog):
    from stlm_jax.data.geometry import Box
    from stlm_jax.data.reader import View
    from stlm_jax.settings import parse

    config = parse(["main", f"--config={finished_run / 'tiny.py'}"]).config
    config.evaluate.score_top_k = 11  # of no other test: nothing of it is compiled yet
    predictor = Predictor(config)
    predictor.load(finished_run / "run/disc")
    view = View(np.zeros((64, 64, 3), np.uint8), Box(0, 0, 64, 64))
    jax.config.update("jax_log_compiles", True)  # in all threads: one of them compiles
    try:
        with caplog.at_level(logging.WARNING):
            (_,) = predictor([view])
            cost = predictor.cost(2)
    finally:
        jax.config.update("jax_log_compiles", False)
    compiled = [r for r in caplog.records if "Compiling jit(predict)" in r.getMessage()]
    assert len(compiled) == 1
    assert cost.batch_size == config.evaluate.batch_size == 4 and cost.device == "cpu"
    assert cost.latency_ms > 0 and cost.flops > 1e6


def test_what_is_not_known_is_not_said():
    known = Cost(16_651_305, 176.4e9, 20.04, 4, "H100")
    assert known.sentence() == (
        "16.65 M parameters, 176 GFLOP an image, 20 ms an image in batches of 4 (median, H100)"
    )
    assert Cost(1_000_000, math.nan, math.nan, 4, "cpu").sentence() == "1.00 M parameters"
