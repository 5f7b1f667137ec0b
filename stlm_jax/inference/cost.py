"""What a prediction costs: parameters, arithmetic and time."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Cost:
    """Of a trained model on the device that evaluated it.

    Attributes:
        parameters: trained numbers of the two streams, the decoder and the FA module.
        flops: floating-point operations an image, as the compiler counts them; nan where the
            device's compiler does not say.
        latency_ms: milliseconds an image from pixels on the device to full-size maps and scores on
            the device, the median of several batches; nan where it was not measured.
        batch_size: images in such a batch.
        device: kind of the device, as JAX names it.
    """

    parameters: int
    flops: float
    latency_ms: float
    batch_size: int
    device: str

    def sentence(self) -> str:
        """The cost in words."""
        parts = [f"{self.parameters / 1e6:.2f} M parameters"]
        if math.isfinite(self.flops):
            parts.append(f"{self.flops / 1e9:.3g} GFLOP an image")
        if math.isfinite(self.latency_ms):
            parts.append(
                f"{self.latency_ms:.3g} ms an image in batches of {self.batch_size} "
                f"(median, {self.device})"
            )
        return ", ".join(parts)


def count_parameters(variables: dict[str, Any]) -> int:
    """How many numbers `variables["params"]` holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def flops_of(compiled: jax.stages.Compiled) -> float:
    """Floating-point operations of a compiled program; nan where its compiler does not count."""
    try:
        analysis = compiled.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return math.nan
    return float((analysis or {}).get("flops", math.nan))


def median_ms(run: Callable[[], Any], runs: int) -> float:
    """Milliseconds of `run`, which gives arrays, until they are there: the median; nan of 0."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(run())  # JAX returns at once: else the dispatch would be timed
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) if times else math.nan
