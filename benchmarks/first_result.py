"""How soon `stlm predict` has its first row: `python -m benchmarks.first_result [--rounds=N]`.

A run with random weights predicts two images, in new processes: the first compiles, those after it
find its programs. Seconds are from the start of a process to the first line of predictions.jsonl.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.inference_kinds import untrained
from stlm_jax.config import default
from stlm_jax.inference import calibration
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.description import Calibration
from stlm_jax.workdir import CHECKPOINTS, CONFIG


def write_run(folder: Path, size: int) -> None:
    """A run of the published student, untrained, and two images of noise."""
    config = default()
    config.image_size = size
    (folder / "run/part").mkdir(parents=True)
    (folder / "run" / CONFIG).write_text(config.to_json())
    _, variables = untrained(config)
    with Checkpoints(folder / "run/part" / CHECKPOINTS) as checkpoints:
        checkpoints.save(1, variables, {"step": np.int32(1)}, {})
    calibration.store(folder / "run/part", Calibration(0.5, 0.4, 0.6, "held_out", 8))
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"images/{number}.png")


def first_row(folder: Path, output: Path) -> float:
    """Seconds until the first row is there."""
    command = [sys.executable, "-m", "stlm_jax.cli.main", "predict", str(folder / "run"),
               str(folder / "images"), f"--output={output}", "--quiet"]  # fmt: skip
    rows, began = output / "predictions.jsonl", time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (rows.is_file() and b'"score"' in rows.read_bytes()):
        if process.poll():
            raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
        time.sleep(0.005)
    taken = time.perf_counter() - began
    process.wait()
    return taken


def main() -> None:
    """Prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, arguments.size)
        taken = [first_row(folder, folder / f"out{n}") for n in range(arguments.rounds + 1)]
    print(f"first row, nothing compiled: {taken[0]:.2f} s")
    warm = ", ".join(f"{seconds:.2f}" for seconds in taken[1:])
    print(f"first row, programs kept: {statistics.median(taken[1:]):.2f} s ({warm})")


if __name__ == "__main__":
    main()
