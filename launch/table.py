"""The plan as one table: a column for each program, a line for each thing to know."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from launch.chips import Chip
from launch.hlo import Traffic
from launch.measured import EVALUATION, FROM_STORE, GIB, STORE, TRAIN, Measured
from launch.roofline import bound, makespan, of_packs, wire_bytes
from launch.work import calls
from stlm_jax.report.tables import align

NOT_KNOWN = "-"
_WAYS = {
    "with the teacher in every step": (TRAIN, EVALUATION),
    "with a teacher's store": (STORE, FROM_STORE, EVALUATION),
}


class Plan(NamedTuple):
    """All that the table is made from.

    Attributes:
        programs: in the table's order.
        work: the fields of `launch.work.Work`.
        chip: what they run on.
        chips: how many there are.
        limit: bytes of memory of one; None where it is not known.
        dtype: of activations.
        precision: of float32 products of matrices, see `Chip.operations`.
        variants: that the teacher's store holds of an image.
        price: of a chip for an hour; None: no money.
    """

    programs: list[Measured]
    work: Mapping[str, Any]
    chip: Chip
    chips: int
    limit: float | None
    dtype: str
    precision: str
    variants: int
    price: float | None


class Time(NamedTuple):
    """The least time of a program.

    Attributes:
        seconds: of a call.
        side: what bounds it.
        calls: of the whole configuration; nan where it is not known.
        hours: until the last category is done.
        busy: hours of all chips that work.
    """

    seconds: float
    side: str
    calls: float
    hours: float
    busy: float


def time_of(plan: Plan, program: Measured) -> Time:
    """The least time of a program, of a call and of all."""
    traffic = {kind: Traffic(*numbers) for kind, numbers in program.traffic.items()}
    chip = plan.chip
    rates = (
        chip.operations(plan.dtype, plan.precision),
        1e9 * chip.memory_gbps,
        1e9 * chip.link_gbps,
    )
    trains = program.name in (TRAIN, FROM_STORE)
    sent = wire_bytes(traffic, plan.work["sides"][1] if trains else program.devices)
    seconds, side = bound(program.flops, program.accessed, sent, rates)
    hour = seconds / 3600
    if trains:
        total, last, busy = _trained(plan.work)
        return Time(seconds, side, total, last * hour, busy * hour * plan.work["sides"][1])
    number = calls(program.name, plan.work, program.batch, plan.variants)
    if number is None:
        return Time(seconds, side, math.nan, math.nan, math.nan)
    groups = plan.chips // program.devices
    if program.name == STORE:  # images, unlike evaluations, may be dealt out as one likes
        total = sum(number.values())
        last = float(-(-total // groups))
    else:
        each = [*number.values()] * plan.work["runs"]
        total, last = sum(each), makespan(each, groups)
    return Time(seconds, side, total, last * hour, total * hour * program.devices)


def _trained(work: Mapping[str, Any]) -> tuple[float, float, float]:
    """As `of_packs`; nan where it is not known how many steps there are."""
    packs = [[math.nan if n is None else float(n) for n in pack] for pack in work["packs"]]
    if any(math.isnan(n) for pack in packs for n in pack):
        return math.nan, math.nan, math.nan
    return of_packs(packs, work["each"])


def rows(plan: Plan) -> list[list[str]]:
    """The table's lines, the headings first."""
    times = [time_of(plan, program) for program in plan.programs]
    table = [["on each device", *(program.name for program in plan.programs)]]

    def add(name: str, cell: Callable[[Measured, Time], str]) -> None:
        pairs = zip(plan.programs, times, strict=True)
        cells = [cell(program, time) for program, time in pairs]
        if set(cells) != {NOT_KNOWN}:
            table.append([name, *cells])

    add("images a call", lambda p, t: str(p.batch))
    if any(program.devices > 1 for program in plan.programs):
        add("devices that share it", lambda p, t: str(p.devices))
    if any(program.trainings > 1 for program in plan.programs):
        add("trainings in it", lambda p, t: str(p.trainings or NOT_KNOWN))
    for what in ("parameters", "optimiser", "teacher", "inputs"):
        add(f"{what}, GiB", lambda p, t, what=what: _gib(p.held.get(what, 0.0)))  # type: ignore[misc]
    add("temporaries, GiB", lambda p, t: _gib(p.temporaries))
    add("code, results, padding, GiB", lambda p, t: _gib(p.other))
    add("peak memory, GiB", lambda p, t: (">= " if p.refusal else "") + _gib(p.peak))
    if plan.limit:
        room = plan.limit
        add(f"of {room / GIB:.2f} GiB", lambda p, t: _plain(100 * p.peak / room, 0, " %"))
    add("TFLOP a call", lambda p, t: _figure(p.flops / 1e12))
    add("GB accessed a call", lambda p, t: _figure(p.accessed / 1e9))
    for kind in dict.fromkeys(kind for program in plan.programs for kind in program.traffic):
        add(f"{kind}, number: MB", lambda p, t, kind=kind: _traffic(p, kind))  # type: ignore[misc]
    if not any(program.traffic for program in plan.programs):
        add("collectives", lambda p, t: "none")
    add("a call at least, ms", lambda p, t: _figure(1e3 * t.seconds))
    add("bound by", lambda p, t: t.side or NOT_KNOWN)
    add("calls in all", lambda p, t: _plain(t.calls, 0))
    add("hours at least", lambda p, t: _figure(t.hours))
    add("chip-hours at least", lambda p, t: _figure(t.hours * plan.chips))
    add("of them at work", lambda p, t: _figure(t.busy))
    if plan.price is not None:
        price = plan.price * plan.chips
        add("price at least", lambda p, t: _plain(t.hours * price, 2))
    add("compiled in, s", lambda p, t: _plain(p.seconds, 0))
    return table


def render(plan: Plan) -> str:
    """The table as text."""
    return align(rows(plan))


def totals(plan: Plan) -> list[str]:
    """A line about the whole configuration with the teacher alive, and one with its store."""
    hours = {program.name: time_of(plan, program).hours for program in plan.programs}
    lines = []
    for way, names in _WAYS.items():
        total = sum(hours.get(name, math.nan) for name in names)
        if not math.isnan(total):
            money = "" if plan.price is None else f", {total * plan.chips * plan.price:.2f} to pay"
            lines.append(
                f"{way} ({' + '.join(names)}): at least {_figure(total)} hours, "
                f"{_figure(total * plan.chips)} chip-hours{money}"
            )
    return lines


def _traffic(program: Measured, kind: str) -> str:
    if kind not in program.traffic:
        return "none"
    count, size = program.traffic[kind]
    return f"{count}: {_figure(size / 1e6)}"


def _gib(number: float) -> str:
    return _figure(number / GIB)


def _plain(number: float, digits: int, unit: str = "") -> str:
    return NOT_KNOWN if math.isnan(number) else f"{number:.{digits}f}{unit}"


def _figure(number: float) -> str:
    """Three digits, without a power of ten."""
    if math.isnan(number):
        return NOT_KNOWN
    if number == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:.{min(digits, 6)}f}"
