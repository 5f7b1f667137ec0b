"""Has programs compiled in processes of their own, which can be stopped at any moment."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any, Self

from launch.chips import Topology
from launch.measured import GIB, Measured
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

# Of a machine that has a TPU, of a job on it, or of another run's choice of devices.
_FOREIGN = re.compile(
    r"(TPU|CLOUD_TPU|MEGASCALE|LIBTPU|CLOUDSDK)_|(JAX_PLATFORMS|JAX_PLATFORM_NAME)$"
)
_KEPT = ("TPU_LIBRARY_PATH",)  # where a libtpu of the user's own lies
_LOG_INTERVAL = 30.0  # seconds between lines where the output is no terminal


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the processes have found out.

    Attributes:
        measured: the programs that were compiled, by name, in order.
        work: the fields of `launch.work.Work`.
        device: the kind of device, as JAX names it.
        limit: bytes of memory that a program may have; None where that is not known.
        host: the most bytes that compiling a program took here.
        too_long: the program whose compiling did not end in time; empty where all did.
    """

    measured: dict[str, Measured]
    work: dict[str, Any]
    device: str
    limit: float | None
    host: int
    too_long: str


def check_compiler(topology: Topology) -> None:
    """Refuses a TPU where its compiler is not installed."""
    if topology.platform == "tpu" and not os.environ.get("TPU_LIBRARY_PATH"):
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                f"--topology={topology.name}: the TPU's compiler, libtpu, is not installed; from "
                "the clone's root: python -m pip install -e '.[tpu]'"
            )


def environment(topology: Topology, around: Mapping[str, str]) -> dict[str, str]:
    """The variables that the process has of those `around`, and what its topology wants."""
    kept = {k: v for k, v in around.items() if k in _KEPT or not _FOREIGN.match(k)}
    if topology.platform != "gpu":
        kept["JAX_PLATFORMS"] = "cpu"  # a TPU's programs are compiled, and none is looked for
    if topology.platform == "cpu" and topology.chips > 1:
        flag = f"--xla_force_host_platform_device_count={topology.chips}"
        kept["XLA_FLAGS"] = f"{kept.get('XLA_FLAGS', '')} {flag}".strip()
    return {**kept, **topology.environment()}


def compile_programs(request: dict[str, Any], topology: Topology, deadline: float) -> Answer:
    """Compiles programs as far as they fit and time suffices.

    Each has a process of its own, as compilers keep much of the memory that a program took.

    Args:
        request: of `launch.worker`, but for `program`; its `programs` are compiled in order, up to
            the first that does not fit.
        topology: what for.
        deadline: of `time.monotonic`, when the compiler is stopped.
    """
    variables = environment(topology, os.environ)
    found = Answer({}, {}, "", None, 0, "")
    for name in request["programs"]:
        with _Worker({**request, "program": name}, variables) as worker:
            part = worker.listen(deadline)
        found = Answer(
            found.measured | part.measured,
            part.work or found.work,
            part.device or found.device,
            part.limit or found.limit,
            max(found.host, part.host),
            part.too_long,
        )
        limit = found.limit or math.inf
        if found.too_long or not all(m.fits(limit) for m in part.measured.values()):
            break
    return found


class _Worker:
    """The process, and what it has said; it is killed at the end of the context."""

    def __init__(self, request: dict[str, Any], variables: dict[str, str]):
        self._asked: str = request["program"]
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C comes to this process, which ends that one at once.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "launch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=variables,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended already, of which more is said
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._program = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def listen(self, deadline: float) -> Answer:
        """Waits for what happens, and says it."""
        found = Answer({}, {}, "", None, 0, "")
        progress = _Elapsed()
        while True:
            try:
                line = self._lines.get(timeout=0.5)
            except queue.Empty:
                progress.show(self._program)
                if time.monotonic() > deadline:
                    progress.end()
                    return dataclasses.replace(found, too_long=self._asked)
                continue
            if line is None:
                progress.end()
                return self._ended(found)
            found = self._take(json.loads(line), found, progress)

    def _take(self, event: dict[str, Any], found: Answer, progress: "_Elapsed") -> Answer:
        kind = event.pop("event")
        if kind == "refused":
            progress.end()
            raise UserError(event["text"])
        if kind == "work":
            return dataclasses.replace(found, work=event)
        if kind == "device":
            return dataclasses.replace(found, device=event["kind"], limit=event["limit"])
        if kind == "begin":
            self._program = event["program"]
            progress.begin()
            return found
        measured = Measured(**event["measured"])
        progress.end()
        note(f"{measured.name}: compiled in {measured.seconds:.0f} s")
        merged = {**found.measured, measured.name: measured}
        return dataclasses.replace(found, measured=merged, host=event["host"])

    def _ended(self, found: Answer) -> Answer:
        status = self._process.wait()
        if status == 0:
            return found
        doing = f"compiling {self._program!r}" if self._program else "starting"
        if status == -9:
            raise UserError(
                f"{doing}: the system has killed the compiler, most likely for want of memory: "
                "take a machine with more, or plan a smaller config.image_size"
            )
        raise UserError(f"{doing}: the compiler has ended itself ({status}): {self._last_words()}")

    def _last_words(self) -> str:
        """The line of the process's errors that says most."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        lines = [line for line in lines if line.strip()]
        failed = [line for line in lines if re.match(r"[\w.]+Error\b|F\d+ .*Check failed", line)]
        return (failed or lines or ["without a word"])[-1][:400]


class _Elapsed:
    """Seconds that compiling takes: one line on a terminal, elsewhere one every 30 seconds."""

    def __init__(self) -> None:
        self.begin()
        self._in_place = sys.stderr.isatty()
        self._shown = False

    def begin(self) -> None:
        self._begin = self._said = time.monotonic()

    def show(self, program: str) -> None:
        now = time.monotonic()
        text = f"{program or 'starting'}: compiling for {now - self._begin:.0f} s"
        if self._in_place:
            print(f"\r{text} ", end="", file=sys.stderr, flush=True)
            self._shown = True
        elif now - self._said >= _LOG_INTERVAL:
            note(text)
            self._said = now

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def gib(number: float) -> str:
    """Bytes in GiB, with four digits at most."""
    return f"{number / GIB:.4g}"
