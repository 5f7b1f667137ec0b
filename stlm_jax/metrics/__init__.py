"""Image-level and pixel-level measures of anomaly detection, in NumPy."""

from stlm_jax.metrics.accumulator import Accumulator, CountedImage, Result
from stlm_jax.metrics.checks import MetricError
from stlm_jax.metrics.curves import Curve
from stlm_jax.metrics.registry import (
    DEFAULT_NAMES,
    Evaluation,
    check_names,
    evaluate,
    evaluate_with_reasons,
)

__all__ = [
    "DEFAULT_NAMES",
    "Accumulator",
    "CountedImage",
    "Curve",
    "Evaluation",
    "MetricError",
    "Result",
    "check_names",
    "evaluate",
    "evaluate_with_reasons",
]
