"""Kills at random moments.

python tests/faults/random_kills.py FOLDER [KIND …] [--kills=20] [--seed=0] [--signal=SIGKILL]

Each of so many kills a kind ends a process at a moment drawn evenly over the time that the work
takes undisturbed; the next start goes on. Work that ended is compared with work that was never
killed, and begins anew in another folder, until there were so many kills. Printed is a table in
Markdown; the exit status is 1 where anything was lost, doubled or left over. By SIGINT or SIGTERM a
process must end with one line that says so, and the status of the signal.

Each process is a fork of this one, which has imported everything and computed nothing.
"""

import argparse
import collections
import importlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from forks import Listening, Stage, forked
from works import TARGETS, WORKS, Facts, Work

from stlm_jax.runtime import exit_status

_IMPORTED = (
    "tensorboardX", "sklearn.metrics", "matplotlib.pyplot", "jinja2", "torch", "onnxruntime",
    "onnx_ir", "array_record.python.array_record_module", "orbax.checkpoint", "grain",
    "scipy.ndimage", "stlm_jax.main", "stlm_jax.training.train", "stlm_jax.prediction.judge",
    "stlm_jax.inference.predict", "conversion.to_torch", "conversion.to_stablehlo",
    "conversion.to_onnx", "conversion.onnx.export",
)  # fmt: skip


class Outcome(NamedTuple):
    """What came of a kind.

    Attributes:
        stages: how many processes were killed at what.
        rounds: how often the work was brought to its end.
        wrong: what was not as in work that was never killed, a line each.
    """

    stages: collections.Counter
    rounds: int
    wrong: list[str]


class Runner:
    """A kind of work, in a folder with `base`."""

    def __init__(self, work: Work, folder: pathlib.Path, by: int = signal.SIGKILL):
        self.signal = by
        # Exports are several commands; like an evaluation, one begins anew at each start.
        self.parts = range(len(TARGETS)) if work.name == "export" else range(1)
        self.in_a_row = 2 if work.name in ("export", "report") else 5
        self.work, self.folder, self.stage = work, folder, Stage(work.stages)
        self.base, self.log = folder / "base", folder / f"{work.name}.log"

    def start(self, place: pathlib.Path, number: int, after: float | None = None) -> int:
        """How a process ended that worked in `place`; it is killed `after` so many seconds."""
        self.log.unlink(missing_ok=True)

        def work() -> int:
            self.stage.watch()
            exit_status.TerminateAsInterrupt = Listening
            return self.work.run(self.base, place, number)

        return forked(work, self.log, after, self.signal)

    def said(self) -> str:
        """What is wrong with what a process said that a signal has stopped."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        last = text.strip().splitlines()[-1:]
        well = self.signal == signal.SIGKILL or (last and "stopped" in last[0])
        return "" if well and "Traceback" not in text else f"it said {text[-1500:]!r}"

    def facts(self, place: pathlib.Path, of: Callable[[pathlib.Path], Facts]) -> Facts:
        """What lies in `place`, as another process tells."""
        told = self.folder / f"{self.work.name}.json"
        told.unlink(missing_ok=True)

        def tell() -> int:
            told.write_text(json.dumps(of(place)))
            return 0

        if forked(tell, self.log) != 0:
            return {"unreadable": self.log.read_text()[-2000:]}
        return json.loads(told.read_text())

    def kill(self, kills: int, draw: np.random.Generator) -> Outcome:
        """Kills so many processes."""
        took: dict[int, float] = {}
        for name in ("first", "whole"):  # the second without the compiler, as those that follow
            self.work.ready(self.base, self.folder / self.work.name / name)
            for part in self.parts:
                begin = time.monotonic()
                status = self.start(self.folder / self.work.name / name, part)
                took[part] = time.monotonic() - begin
                assert status == 0, f"{self.work.name}: {status}: {self.log.read_text()[-3000:]}"
        whole = self.facts(self.folder / self.work.name / "whole", self.work.facts)
        assert whole and "unreadable" not in whole, whole
        stages: collections.Counter = collections.Counter()
        wrong: list[str] = []
        ended = -signal.SIGKILL if self.signal == signal.SIGKILL else 128 + self.signal
        done = 0
        while sum(stages.values()) < kills:
            done += 1
            place = self.folder / self.work.name / f"round_{done}"
            self.work.ready(self.base, place)
            for part in self.parts:
                for _ in range(min(self.in_a_row, kills - sum(stages.values()))):
                    status = self.start(place, part, draw.uniform(0, took[part]))
                    if status == 0:
                        break
                    if status != ended or self.said():
                        wrong.append(f"{place}: ended by {status}: {self.said()}")
                    stages[str(self.stage)] += 1
                    there = self.facts(place, self.work.partly)
                    wrong += [f"{place}, killed: {line}" for line in unlike(there, whole, there)]
                if (status := self.start(place, part)) != 0:
                    wrong.append(f"{place}: ended by {status}")
            found = self.facts(place, self.work.facts)
            wrong += [f"{place}: {line}" for line in unlike(found, whole, found | whole)]
            wrong += [f"{place}: {path} is left" for path in leftovers(place)]
        return Outcome(stages, done, wrong)


def unlike(ours: Facts, theirs: Facts, names: Facts) -> list[str]:
    """What of `names` differs, a line each."""
    return [
        f"{name} is {ours.get(name, 'not there')[:300]}, not {theirs.get(name, 'there')[:300]}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def leftovers(place: pathlib.Path) -> list[str]:
    """Files that only a process at work, or a killed one, has."""
    return [
        path.relative_to(place).as_posix()
        for path in sorted(place.rglob("*"))
        if path.name.endswith((".tmp", ".partial"))
        or "orbax-checkpoint-tmp" in path.name
        or path.name in ("lock", "predictions.lock")
    ]


def prepare(folder: pathlib.Path) -> None:
    """Imports everything, and makes `base`: data, configuration, photographs, a finished run."""
    from miniature import write_set

    from stlm_jax.cli.main import main

    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    for name in _IMPORTED:
        importlib.import_module(name)
    base = folder / "base"
    if not (base / "tiny.py").is_file():
        write_set(base, ["disc"])
    for number in range(4):
        for split in ("good", "spot"):
            target = base / f"photos/{number}/{split}"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(base / f"data/disc/test/{split}", target_is_directory=True)
    if (base / "run/results/details.json").is_file():
        return
    command = ["stlm", "train", f"--config={base / 'tiny.py'}", f"--workdir={base / 'run'}"]
    status = forked(lambda: main(command), folder / "base.log")
    assert status == 0, (folder / "base.log").read_text()


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = [
        "| work | kills | what was killed | brought to its end | as if never killed |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name, of in outcomes.items():
        at = ", ".join(f"{stage} {count}" for stage, count in of.stages.most_common())
        bad = len({line.partition(":")[0].partition(",")[0] for line in of.wrong})
        kills = sum(of.stages.values())
        lines.append(f"| {name} | {kills} | {at} | {of.rounds} | {of.rounds - bad} |")
    return "\n".join(lines)


def run_all(
    folder: pathlib.Path, kinds: list[str], kills: int, seed: int, by: int
) -> dict[str, Outcome]:
    """Kills so many processes of each kind; of all where none is named."""
    prepare(folder)
    outcomes = {}
    for number, work in enumerate(WORKS):
        if kinds and work.name not in kinds:
            continue
        begin = time.monotonic()
        draw = np.random.default_rng([seed, number])
        outcomes[work.name] = Runner(work, folder, by).kill(kills, draw)
        print(f"{work.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", type=lambda name: signal.Signals[name], default=signal.SIGKILL)
    given = parser.parse_args()
    outcomes = run_all(given.folder, given.kinds, given.kills, given.seed, given.signal)
    print(f"{given.signal.name}, seed {given.seed}.\n\n{table(outcomes)}")
    problems = [line for of in outcomes.values() for line in of.wrong]
    print("\n".join(problems), file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
