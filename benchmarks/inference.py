"""Inference of one model by whatever people run it with: `python -m benchmarks.inference`.

    python -m benchmarks.inference [--sizes=1024,256] [--batches=1,8] [--rounds=6] [--kinds=A,B]
        [--encoder=tiny_vit_5m] [--teacher=vit_h] [--reference=DIR] [--out=FILE.json]

Every way is a process of its own, so that its memory is its own, and is timed in turn with the
reference, our eager PyTorch model: a ratio is of calls that followed each other. Before that its
maps are compared with the reference's. Seconds are medians; a ratio below 1 is faster.
DIR is a clone of the published code, with MobileSAM's package in it as its README says.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference_kinds import (
    KINDS,
    PUBLISHED,
    REFERENCE,
    REFERENCE_FOLDER,
    TOLERANCE,
    TOLERANCES,
    write_models,
)


class Worker:
    """A process that has a way loaded."""

    def __init__(self, kind: str, folder: Path, size: int, batch: int):
        """Starts it; it answers once it has made a first call."""
        command = [sys.executable, "-m", "benchmarks.inference", "--worker", kind, str(folder),
                   str(size), str(batch)]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.first = self._answer()

    def call(self) -> float:
        """Seconds of a call."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"ended with status {self._process.wait()}")

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def work(kind: str, folder: Path, size: int, batch: int) -> None:
    """What a worker does: a call for every line that it reads."""
    began = time.perf_counter()
    call = KINDS[kind](folder, batch)
    images = np.load(folder / f"images_{size}.npy")[:batch]
    maps, scores = call(images)
    np.savez(folder / f"{_file(kind)}.npz", maps=maps, scores=scores)
    first = time.perf_counter() - began
    print(json.dumps({"first": first, "gib": _peak()}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        call(images)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


def _peak() -> float:
    """GiB that this process had at most; what it was forked from does not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return math.nan


def _file(kind: str) -> str:
    return kind.replace(" ", "_")


def compare(kinds: list[str], folder: Path, size: int, batch: int, rounds: int) -> Iterator[dict]:
    """The row of each way."""
    for kind in kinds:
        row: dict[str, Any] = {"kind": kind, "size": size, "batch": batch}
        workers = []
        try:
            workers = [Worker(each, folder, size, batch) for each in (REFERENCE, kind)]
            row["difference"] = _difference(kind, folder)
            taken: list[list[float]] = [[], []]
            for _ in range(rounds):
                for place, worker in enumerate(workers):
                    taken[place].append(worker.call())
        except RuntimeError as error:
            row["failed"] = str(error)
        else:
            reference, ours = map(statistics.median, taken)
            row |= {"seconds": ours, "reference": reference, "ratio": ours / reference}
            row |= workers[1].first
        finally:
            for worker in workers:
                worker.close()
        yield row


def _difference(kind: str, folder: Path) -> float:
    """‖maps − reference's‖ / ‖reference's‖; a RuntimeError where it is too large."""
    found, expected = (np.load(folder / f"{_file(each)}.npz") for each in (kind, REFERENCE))
    distance = float(
        np.linalg.norm(found["maps"] - expected["maps"]) / np.linalg.norm(expected["maps"])
    )
    if not distance <= TOLERANCES.get(kind, TOLERANCE):
        raise RuntimeError(f"its maps differ by {distance:.2g}: not timed")
    return distance


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of the rows."""
    headings = ["", "px", "batch", "s a call", "images/s", "of eager torch",
                "loading and first call, s", "GiB", "maps differ by"]  # fmt: skip
    lines = [f"| {' | '.join(headings)} |", "| --- |" + " ---: |" * (len(headings) - 1)]
    for row in rows:
        start = f"| {row['kind']} | {row['size']} | {row['batch']} |"
        if "failed" in row:
            lines.append(f"{start} {row['failed']} | | | | | |")
            continue
        rate = row["batch"] / row["seconds"]
        lines.append(
            f"{start} {row['seconds']:.3f} | {rate:.2f} | {row['ratio']:.2f} | "
            f"{row['first']:.1f} | {row['gib']:.2f} | {row['difference']:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints a table, and writes the rows as JSON where asked."""
    if sys.argv[1:2] == ["--worker"]:
        kind, folder, size, batch = sys.argv[2:]
        work(kind, Path(folder), int(size), int(batch))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1024,256")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--kinds", default=",".join(kind for kind in KINDS if kind != PUBLISHED))
    parser.add_argument("--encoder", default="tiny_vit_5m")
    parser.add_argument("--teacher", default="vit_h", help="whose width the student has")
    parser.add_argument("--reference", metavar="DIR", help="the published code, to be timed too")
    parser.add_argument("--out")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if options.reference:
        os.environ[REFERENCE_FOLDER] = os.path.abspath(options.reference)  # workers inherit it
        kinds.append(PUBLISHED)
    rows: list[dict[str, Any]] = []
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder, largest = Path(name), max(map(int, options.batches.split(",")))
            write_models(folder, size, options.encoder, options.teacher)
            images = np.random.default_rng(0).integers(0, 256, (largest, size, size, 3), np.uint8)
            np.save(folder / f"images_{size}.npy", images)
            for batch in map(int, options.batches.split(",")):
                for row in compare(kinds, folder, size, batch, options.rounds):
                    rows.append(row)
                    print(markdown([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(markdown(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
