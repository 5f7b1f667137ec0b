"""How long a program takes at least, and what the work of a whole configuration adds up to."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence

from launch.hlo import Traffic

ARITHMETIC, MEMORY, LINKS = "arithmetic", "memory", "links"


def wire_bytes(traffic: Mapping[str, Traffic], devices: int) -> float:
    """Bytes that a device has to send for its collectives, by the best known algorithms on a ring.

    An all-reduce of n bytes sends 2 n (d − 1) / d, an all-gather or all-to-all that gives n bytes
    n (d − 1) / d, a reduce-scatter that gives n bytes n (d − 1).
    """
    if devices < 2:
        return 0.0
    rest = (devices - 1) / devices
    share = {"all-reduce": 2 * rest, "reduce-scatter": devices - 1, "collective-permute": 1.0}
    return sum(part.bytes * share.get(kind, rest) for kind, part in traffic.items())


def bound(
    flops: float, memory_bytes: float, link_bytes: float, rates: tuple[float, float, float]
) -> tuple[float, str]:
    """The least seconds of a program and what they are spent on; nan where a rate is not known.

    Args:
        flops: operations of one device.
        memory_bytes: that it reads from and writes to its memory.
        link_bytes: that it sends.
        rates: operations, bytes of memory and bytes of links a second.
    """
    sides = {
        ARITHMETIC: flops / rates[0],
        MEMORY: memory_bytes / rates[1],
        LINKS: link_bytes / rates[2] if link_bytes else 0.0,
    }
    if any(math.isnan(seconds) for seconds in sides.values()):
        return math.nan, ""
    side = max(sides, key=lambda name: sides[name])
    return sides[side], side


def of_packs(packs: Sequence[Sequence[float]], each: int) -> tuple[float, float, float]:
    """Calls of a program of packs of groups: how many, what they last, and what devices work.

    A device that trains some groups one after the other takes less for a call once one has ended.

    Args:
        packs: of groups, one after the other: the steps of each group, the longest first, as they
            lie on the devices.
        each: groups that a device trains.

    Returns:
        The calls; how many whole ones they last as long as; how many of one device its row of
        devices works, over all rows.
    """
    number = sum(max(pack) for pack in packs)
    lasting = sum(sum(pack[:each]) for pack in packs) / each
    return number, lasting, sum(map(sum, packs)) / each


def makespan(lengths: Iterable[float], groups: int) -> float:
    """When the last of some jobs ends that as many groups share, the longest begun first."""
    ends = [0.0] * groups
    for length in sorted(lengths, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + length)
    return max(ends)
