"""Proves that a run fits before anything is rented, and says what it will take.

`python -m launch.plan --config=configs/mvtec.py --topology=v5e:4x4`; `--help` lists all options.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from launch.changes import changes, pasted
from launch.compiling import Answer, check_compiler, compile_programs, gib
from launch.measured import GIB, PROGRAMS, Measured
from launch.options import Options, parse
from stlm_jax.config import flatten
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.runtime.progress import note, say

FITS, DOES_NOT_FIT = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the program's name first) and returns its exit status."""
    arguments = list(sys.argv if argv is None else argv)
    return exit_status(lambda: _run(arguments), "stopped; nothing was rented")


def _run(argv: Sequence[str]) -> int:
    options = parse(argv)
    if options is None:
        return FITS
    check_compiler(options.topology)
    search = Search(options)
    search.run()
    _print(options, search)
    return FITS if search.fits else DOES_NOT_FIT


class Search:
    """Compiles the programs as they are asked for, then with changes until all fit.

    Attributes:
        overrides: the changes of the last try.
        measured: by program, of the last try in which it was compiled.
        answer: the last one.
        host: the most bytes that a try took on this machine.
        fits: whether all programs do.
    """

    def __init__(self, options: Options):
        self.options = options
        self.overrides: dict[str, Any] = {}
        self.measured: dict[str, Measured] = {}
        self.answer: Answer | None = None
        self.host, self.fits = 0, False
        self._deadline = time.monotonic() + 60 * options.max_minutes

    def run(self) -> None:
        """Tries one change after the other."""
        options = self.options
        ladder = list(changes(options.config, options.data))
        waiting = list(options.programs)
        while True:
            misfit = self._try(waiting)
            if misfit is None:
                return
            waiting = [misfit.name, *(name for name in waiting if name != misfit.name)]
            change = next((c for c in ladder if misfit.name in c.programs), None)
            if change is None:
                return
            ladder.remove(change)
            # What it changes has to be compiled again, even where it fitted.
            again = [name for name in change.programs if name in self.measured]
            waiting += [name for name in again if name not in waiting]
            self.overrides |= change.overrides
            note(f"{misfit.name} does not fit, trying {pasted(self.overrides)}")

    def _try(self, names: list[str]) -> Measured | None:
        """Compiles programs until one does not fit, which it returns; sets `fits` if all do."""
        self.answer = compile_programs(self._request(names), self.options.topology, self._deadline)
        self.host = max(self.host, self.answer.host)
        limit = self.answer.limit or math.inf
        for name, measured in self.answer.measured.items():
            self.measured[name] = measured
            if name in names and measured.fits(limit):
                names.remove(name)
        misfits = [m for m in self.answer.measured.values() if not m.fits(limit)]
        self.fits = not misfits and not self.answer.too_long
        return misfits[0] if misfits else None

    def config(self) -> Any:
        """The configuration with the changes of the last try."""
        config = self.options.config.copy_and_resolve_references()
        config.update_from_flattened_dict(self.overrides)
        return config

    def _request(self, names: list[str]) -> dict[str, Any]:
        options = self.options
        limit = options.memory_gib or options.topology.chip.memory_gib
        return {
            "topology": options.topology.name,
            "config": json.loads(self.config().to_json()),
            "data": options.data,
            "images": options.images,
            "limit": None if math.isnan(limit) else limit * GIB,
            "programs": list(names),
        }


def _print(options: Options, search: Search) -> None:
    from launch.table import Plan, render, totals  # here: its imports are of the slow kind

    answer, topology = search.answer, options.topology
    assert answer is not None
    values = flatten(search.config())
    programs = [search.measured[name] for name in PROGRAMS if name in search.measured]
    plan = Plan(
        programs=programs,
        work=answer.work,
        chip=topology.chip,
        chips=topology.chips,
        limit=answer.limit,
        dtype=values["dtype"],
        precision=values.get("precision", "default"),
        variants=values["teacher.store_variants"],
        price=options.price,
    )
    for line in _heading(options, search, values):
        say(line)
    if programs:
        say("\n" + render(plan))
        for line in totals(plan):
            say(line)
    loops = [program.name for program in programs if program.loops]
    if loops:
        say(f"in loops of {', '.join(loops)} bytes are counted once: the bound by memory is low")
    say(f"compiling took at most {gib(search.host)} GiB of memory here")
    for line in _verdict(options, search):
        say(line)


def _heading(options: Options, search: Search, values: dict[str, Any]) -> list[str]:
    answer, topology = search.answer, options.topology
    assert answer is not None
    lines = [f"{options.file} on {topology.name} ({answer.device}), {values['dtype']}"]
    if answer.work:
        lines.append(_trainings(answer.work, topology.chips, values["train.batch_size"]))
    source = answer.work.get("source", "")
    trained = [n for n in answer.work.get("images", {}).values() if n is not None]
    lines.append(
        f"{sum(trained)} images to train on ({source}), {values['teacher.store_variants']} "
        "pseudo-anomalous variants of each in a teacher's store"
        if source
        else "how many images there are is not known: give --images=N for steps and hours"
    )
    return lines


def _trainings(work: dict[str, Any], chips: int, batch: int) -> str:
    """What is trained by which devices."""
    packs, (rows, data), runs = work["packs"], work["sides"], work["runs"]
    largest, used = max(map(len, packs)), rows * data
    what = f"{_count(len(work['steps']), 'category', 'categories')}"
    if runs > 1:
        what = f"{_count(runs, 'run')} of {what}"
    where = f"{used} of {_count(chips, 'device')}"
    if used == chips:
        where = _count(chips, "device")
    if largest == 1 and runs == 1:
        how = f"one after the other on {where}" if len(packs) > 1 else f"on {where}"
    else:
        how = f"up to {_count(largest, 'group')} of trainings in one program on {where}"
        how += f", {_count(len(packs), 'such pack')}" if len(packs) > 1 else ""
    shared = f", {batch // data} on each of {data} devices" if data > 1 else ""
    return f"trains {what}, {how}; {_count(batch, 'image')} a step{shared}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _verdict(options: Options, search: Search) -> list[str]:
    answer = search.answer
    assert answer is not None
    limit = answer.limit or math.nan
    pasting = options.changed | search.overrides
    if search.fits:
        if not search.overrides:
            return [f"fits with {pasted(pasting)}" if pasting else "fits as it is"]
        return [f"does not fit as it is; it fits with: {pasted(pasting)}"]
    if answer.too_long:
        return [
            f"not proven to fit: {answer.too_long} was not compiled when --max_minutes="
            f"{options.max_minutes:g} were over"
        ]
    worst = [m for m in search.measured.values() if not m.fits(limit)]
    needs = ", ".join(f"{m.name} takes {gib(m.peak)} GiB" for m in worst)
    tried = f", even with {pasted(search.overrides)}" if search.overrides else ""
    return [
        f"does not fit: {needs} of {gib(limit)}{tried}; lower config.image_size or "
        "config.data.texture_count, or take a device with more memory"
    ]


if __name__ == "__main__":
    end(main())
