"""How fast metrics come: `python -m benchmarks.metrics [--images=N] [--size=S] [--rounds=N]`.

Compares, in one run and on the same maps, the accumulator that evaluation uses, our own exact
evaluation, a straightforward evaluator (`straightforward_metrics.py`) and, where it is installed,
anomalib's AUPRO, and prints how far their values lie apart. Maps are what the model makes: a small
map through a sigmoid, made large bilinearly; every second image has defects.
"""

import argparse
import os
import resource
import statistics
import time

import numpy as np
from scipy import ndimage

from benchmarks import straightforward_metrics
from benchmarks.timing import seconds, table
from stlm_jax.data.images import resize_map
from stlm_jax.data.threads import in_threads
from stlm_jax.metrics import Accumulator, evaluate

NAMES = ("pixel_auroc", "pixel_ap", "aupro")
STRAIGHTFORWARD = "straightforward, exact"


def make(index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A map (size, size) float32 in 0..1 and its mask (size, size) bool."""
    rng = np.random.default_rng(index)
    mask = np.zeros((size, size), bool)
    for _ in range(rng.integers(1, 5) * (index % 2)):
        height, width = rng.integers(size // 64, size // 8, 2)
        row, column = rng.integers(0, size - size // 8, 2)
        mask[row : row + height, column : column + width] = True
    seen = resize_map(mask.astype(np.float32), (64, 64))
    logits = ndimage.gaussian_filter(rng.normal(0, 3, (64, 64)), 1) + 4 * seen - 5
    return resize_map((1 / (1 + np.exp(-logits))).astype(np.float32), (size, size)), mask


def accumulate(images, bootstrap: int):
    """The metrics of images as they come, with everything else that a report asks for.

    As in evaluation threads count images, of which few wait, and they are folded in in order.
    """
    accumulator = Accumulator(NAMES, bootstrap)

    def count(image):
        values, mask = image
        return accumulator.count(values, mask, float(values.max()), bool(mask.any()), "defect")

    for counted in in_threads(count, images, ahead=4):
        accumulator.fold(counted)
    return accumulator.result()


def anomalib_aupro(maps: list[np.ndarray], masks: list[np.ndarray]):
    """A function that computes anomalib's AUPRO, or None where it is not installed."""
    try:
        import torch
        from anomalib.metrics.aupro import _AUPRO
    except ImportError:
        return None

    def compute():
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks)).int())
        return metric.compute()

    return compute


def counting(times: list[float], function):
    """The function, adding the processor time of each call to `times`."""

    def call():
        begin = time.process_time()
        result = function()
        times.append(time.process_time() - begin)
        return result

    return call


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="only the accumulator's peak memory")
    arguments = parser.parse_args()
    images, size = arguments.images, arguments.size
    if arguments.memory:
        accumulate((make(index, size) for index in range(images)), bootstrap=1000)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{images} maps of {size} px, one by one: at most {peak:.0f} MiB in the process")
        return
    maps, masks = map(list, zip(*(make(i, size) for i in range(images)), strict=True))
    exact = straightforward_metrics.evaluate(maps, masks)
    found = accumulate(zip(maps, masks, strict=True), bootstrap=0)
    for name in NAMES:
        apart, bound = abs(found.values[name] - exact[name]), found.error_bounds[name]
        print(f"{name:12s} {exact[name]:.7f}, accumulator off by {apart:.1e}, bound {bound:.1e}")
    functions = {
        STRAIGHTFORWARD: lambda: straightforward_metrics.evaluate(maps, masks),
        "metrics.evaluate, exact": lambda: evaluate(np.stack(maps), np.stack(masks), names=NAMES),
        "Accumulator": lambda: accumulate(zip(maps, masks, strict=True), bootstrap=0),
        "Accumulator, with intervals": lambda: accumulate(zip(maps, masks, strict=True), 1000),
    }
    anomalib = anomalib_aupro(maps, masks)
    if anomalib:
        functions["anomalib, AUPRO alone"] = anomalib
    print(f"{len(os.sched_getaffinity(0))} cores, {images} maps of {size} px")
    processor: dict[str, list[float]] = {name: [] for name in functions}
    counted = {name: counting(processor[name], each) for name, each in functions.items()}
    print(table(seconds(counted, arguments.rounds), STRAIGHTFORWARD, images))
    print("processor time, which other work on the machine does not count into:")
    used = {name: statistics.median(times) for name, times in processor.items()}
    print(table(used, STRAIGHTFORWARD, images))


if __name__ == "__main__":
    main()
