"""What a compiled program sends between devices, and its loops, read from its text."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# `%name (parameters) -> result {` opens a computation; `ENTRY` marks the one that is run.
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_CALLS = re.compile(r"\b(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CALLED = re.compile(r" call\(.*\bto_apply=%?([\w.\-]+)")  # elsewhere it is a reduction's sum
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r" while\(.*\bcondition=%?([\w.\-]+)")
_INTEGER = re.compile(r"%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r" compare\([^)]*?([\w.\-]+)\), direction=LT")
_SHAPE = re.compile(r"\b(pred|[a-z]+?(\d+)[a-z0-9]*)\[([\d,]*)\]")


class Traffic(NamedTuple):
    """Collectives of a kind in one run of a program, on one device.

    Attributes:
        number: how many.
        bytes: of their results, together.
    """

    number: int = 0
    bytes: int = 0


class _Found(NamedTuple):
    kind: str
    channel: str  # "" where it has none
    bytes: int


class Program(NamedTuple):
    """What is read from a module's text.

    Attributes:
        collectives: by kind, in the order of `KINDS`.
        loops: how many loops turn more than once, or nobody knows how often.
    """

    collectives: dict[str, Traffic]
    loops: int


@dataclasses.dataclass
class _Computation:
    """One computation: its collectives, what it calls how often, and how far it lets a loop go."""

    found: list[_Found] = dataclasses.field(default_factory=list)
    calls: list[tuple[str, int | str]] = dataclasses.field(default_factory=list)
    integers: dict[str, int] = dataclasses.field(default_factory=dict)
    limit: str = ""

    def turns(self) -> int | None:
        """Of the loop whose condition it is, which counts from 0 by 1; None where it can't tell."""
        return self.integers.get(self.limit)


def read(text: str) -> Program:
    """What an optimised HLO module does between devices, and its loops.

    Collectives in a loop count as often as it turns, where the text says how often. The parts of
    one that was taken apart, so that other work may go on meanwhile, share its channel and count
    once.
    """
    computations, entry = _computations(text)
    by_channel: dict[str, tuple[_Found, int]] = {}
    total: dict[str, list[int]] = {kind: [0, 0] for kind in KINDS}

    def add(one: _Found, times: int) -> None:
        total[one.kind][0] += times
        total[one.kind][1] += times * one.bytes

    runs, loops = _runs(computations, entry)
    for name, times in runs.items():
        for one in computations[name].found:
            if not one.channel:
                add(one, times)
            elif times >= by_channel.get(one.channel, (one, 0))[1]:
                by_channel[one.channel] = one, times
    for one, times in by_channel.values():
        add(one, times)
    return Program({k: Traffic(*numbers) for k, numbers in total.items() if numbers[0]}, loops)


def _computations(text: str) -> tuple[dict[str, _Computation], str]:
    """The module's computations by name, and the name of the one that is run."""
    computations: dict[str, _Computation] = defaultdict(_Computation)
    name = entry = ""
    for line in text.splitlines():
        opening = _COMPUTATION.match(line)
        if opening:
            name = opening[2]
            entry = name if opening[1] else entry
        elif " = " in line:
            _read_line(line, computations[name])
    return computations, entry


def _read_line(line: str, into: _Computation) -> None:
    collective = _COLLECTIVE.search(line)
    if collective:
        channel = _CHANNEL.search(line)
        size = _result_bytes(line[: collective.start()], collective[1], bool(collective[2]))
        into.found.append(_Found(collective[1], channel[1] if channel else "", size))
    integer = _INTEGER.search(line)
    if integer:
        into.integers[integer[1]] = int(integer[2])
    below = _BELOW.search(line)
    if below:
        into.limit = below[1]
    known, condition = _TRIPS.search(line), _CONDITION.search(line)
    times: int | str = int(known[1]) if known else condition[1] if condition else 1
    into.calls += [(m[1], times) for m in (*_CALLS.finditer(line), *_CALLED.finditer(line))]
    branches = _BRANCHES.search(line)
    if branches:
        into.calls += [(part.strip(" %"), 1) for part in branches[1].split(",")]


def _runs(computations: dict[str, _Computation], entry: str) -> tuple[dict[str, int], int]:
    """How often each computation runs when `entry` runs once; how many loops there are."""
    runs: dict[str, int] = defaultdict(int)
    loops = 0

    def visit(name: str, times: int) -> None:
        nonlocal loops
        runs[name] += times
        for called, often in computations[name].calls:
            turns = computations[often].turns() if isinstance(often, str) else often
            loops += turns != 1
            visit(called, times * (1 if turns is None else turns))

    visit(entry, 1)
    return runs, loops


def _result_bytes(declaration: str, kind: str, starts: bool) -> int:
    """Bytes of what a collective gives, of the type that its line begins with."""
    sizes = list(_sizes(declaration.partition("=")[2]))
    if starts and kind != "all-reduce":
        # An operation that only starts gives its operands, its results and, of some, two numbers.
        sizes = [size for size in sizes if size > 4] or sizes
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _sizes(shapes: str) -> Iterable[int]:
    for match in _SHAPE.finditer(shapes):
        bits = 8 if match[1] == "pred" else int(match[2])
        for side in filter(None, match[3].split(",")):
            bits *= int(side)
        yield -(-bits // 8)
