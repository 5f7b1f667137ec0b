"""Alternating measurements, so that a machine's drift falls on all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import jax


def seconds(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, called in turn `rounds` times after one warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function())
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in taken.items()}


def table(measured: Mapping[str, float], reference: str, images: int) -> str:
    """Seconds, images/s and the ratio to `reference`, a line each."""
    lines = [f"{'':32s} {'seconds':>9s} {'images/s':>9s} {'speed-up':>9s}"]
    for name, value in measured.items():
        ratio = measured[reference] / value
        lines.append(f"{name:32s} {value:9.3f} {images / value:9.2f} {ratio:9.2f}")
    return "\n".join(lines)
