"""Compiles a program of a plan; `launch.compiling` starts it, to be able to stop it.

It reads one line of JSON, a request, and writes one line for each thing that happens. It ends when
whoever started it is gone.
"""

import json
import os
import re
import resource
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from launch import arithmetic, hlo
from launch.chips import Topology, parse_topology
from launch.measured import GIB, Measured
from launch.programs import Program, programs
from launch.together import trained_together
from launch.work import work_of
from stlm_jax.config import of_values
from stlm_jax.runtime.compilation import use_matmul_precision
from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.host_memory import total_memory
from stlm_jax.runtime.mesh import MEMBER
from stlm_jax.runtime.sharding import DATA

# The two ways in which compilers say what a program would need.
_NEEDS = re.compile(r"(?:\((\d+(?:\.\d+)?)([KMGT]?)\) exceeds|Used (\d+(?:\.\d+)?)([KMGT]?) of)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


def main() -> None:
    """Answers the request on the standard input."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no event
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def emit(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=events, flush=True)

    try:
        _answer(request, emit)
    except UserError as error:
        emit("refused", text=str(error))


def _answer(request: dict[str, Any], emit: Any) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # its seconds are to be true
    topology = parse_topology(request["topology"])
    config = of_values(request["config"])
    use_matmul_precision(config.precision)  # as a run has it, for the whole process
    devices = _devices(topology)
    work = work_of(config, request["images"])
    together = trained_together(config, work.steps, devices, topology.chips)
    emit("work", **work._asdict() | together.facts(work.steps))
    limit = request["limit"]
    if topology.platform == "cpu" and not limit:
        total = total_memory()  # which simulated devices share
        limit = total and total / topology.chips
    emit("device", kind=str(devices[0].device_kind), limit=limit)
    name = request["program"]
    for program in programs(config, _mesh(devices, request["data"]), together):
        if program.name == name:  # a run without a teacher has not all of them
            emit("begin", program=name)
            measured = _compile(program)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            emit("end", measured=measured.as_json(), host=memory * (1 if _is_mac() else 1024))
            return


def _mesh(devices: list[Any], data: int) -> Mesh:
    """One device, or all of the slice, in groups of `data` that each hold a batch of their own."""
    if len(devices) < data:
        raise UserError(f"--data={data}: there are {len(devices)} devices here to compile for")
    # Where devices send to each other, libtpu takes no part of a slice that is no rectangle.
    used = devices[:1] if data == 1 else devices[: len(devices) // data * data]
    grid = np.array(used).reshape(-1, data)
    return Mesh(grid, (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def _devices(topology: Topology) -> list[Any]:
    if topology.platform == "tpu":
        from jax.experimental import topologies

        try:
            description = topologies.get_topology_desc(
                topology.name, "tpu", **topology.description_options()
            )
        except jax.errors.JaxRuntimeError as error:
            raise UserError(
                f"--topology={topology.name}: libtpu has no such slice ({first_line(error)[:120]})"
            ) from None
        return list(description.devices)
    try:
        devices = jax.devices(topology.platform)
    except RuntimeError:
        raise UserError(
            f"--topology={topology.name}: a GPU's compiler is not to be had here; it wants a "
            "machine with such a GPU and stlm_jax[gpu]"
        ) from None
    return devices[: topology.chips]


def _compile(program: Program) -> Measured:
    begin = time.monotonic()
    traced = program.trace()
    lowered = traced.lower()
    held = program.held_bytes()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise UserError(f"{program.name}: the compiler fails: {first_line(error)}") from error
        needs = _NEEDS.search(str(error))
        found = [part for part in needs.groups() if part is not None] if needs else []
        peak = float(found[0]) * _UNITS[found[1]] if found else float("nan")
        if needs and needs[1]:  # of temporaries alone
            peak += sum(held.values())
        return Measured(
            program.name,
            program.batch,
            program.devices,
            held,
            program.trainings,
            peak=peak,
            seconds=time.monotonic() - begin,
            refusal=first_line(error)[:300],
        )
    seconds = time.monotonic() - begin
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = hlo.read(compiled.as_text() or "")
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    # Arguments that a program has no use for are none of its own, but lie in memory as well.
    padding = max(0.0, memory.argument_size_in_bytes - sum(held.values()))
    other = memory.generated_code_size_in_bytes + results + padding
    counted = arithmetic.flops(traced.jaxpr.jaxpr, program.turns) / program.devices
    return Measured(
        program.name,
        program.batch,
        program.devices,
        held,
        program.trainings,
        temporaries=memory.temp_size_in_bytes,
        other=other,
        peak=sum(held.values()) + memory.temp_size_in_bytes + other,
        flops=max(cost.get("flops", 0.0), counted),
        accessed=cost.get("bytes accessed", float("nan")),
        traffic={kind: (part.number, part.bytes) for kind, part in text.collectives.items()},
        loops=text.loops,
        seconds=seconds,
    )


def _is_mac() -> bool:
    return sys.platform == "darwin"  # whose system counts in bytes, not in KiB


def _end_with_parent() -> None:
    while sys.stdin.read(4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # without the wait for threads of a compiler
