"""How a target's input may end: read as it was, or refused in a line; never by any other way."""

import contextlib
import io
import os
import resource
import signal

import hypothesis
from hypothesis import HealthCheck, Phase

from stlm_jax.runtime.errors import UserError

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
_HANGS = 120  # seconds, for an input that takes hundredths of one
_PAGE = resource.getpagesize()
_NO_MEMORY = ("bad_alloc", "allocate", "out of memory", "std::length_error")
# What torch says of a size in its old format, for which it asks before it finds the file too short.
_UNTOUCHED = "DefaultCPUAllocator: can't allocate memory"
tried: dict[str, int] = {}  # inputs by target and outcome


def budget(short: int, long: int):
    """How many inputs a target has, in the default suite and by `make fuzz`."""
    return hypothesis.settings(
        max_examples=long if LONG else short,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),  # a smaller damaged file tells no more
        suppress_health_check=list(HealthCheck),
    )


class Hang(BaseException):
    """What ends an input that would never end."""


class Memory(AssertionError):
    """An input that asks for more memory than anything of its size needs."""


@contextlib.contextmanager
def bounded(gib: float = 2.0):
    """Has what is run inside neither hang nor take more memory than `gib` beyond what there is."""

    def hang(*_):
        raise Hang

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * _PAGE
    handler = signal.signal(signal.SIGALRM, hang)
    signal.alarm(_HANGS)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(target: str, call, path=None, gib: float = 2.0):
    """What `call` gives and what it said, or None and the line that it is refused with.

    Any other exception goes on: it is what is looked for.
    """
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), bounded(gib):
        try:
            found = call()
        except UserError as error:
            _count(target, "refused")
            _check_line(error, path)
            return None, str(error)
        except MemoryError as error:
            raise Memory(str(error)) from error
    _count(target, "read")
    return found, said.getvalue()


def _check_line(error: UserError, path) -> None:
    line = " ".join(str(error).split())  # as commands print it, whatever a user's value holds
    assert line and len(line) < 20_000, line
    assert path is None or str(path) in line, line
    below: BaseException | None = error
    while below is not None:
        if _UNTOUCHED in str(below):
            return
        if isinstance(below, MemoryError) or any(word in str(below) for word in _NO_MEMORY):
            raise Memory(line) from error
        below = below.__cause__ or below.__context__


def command(main, arguments, gib: float = 2.0):
    """Status and lines of stderr of a command line, which ends as every command must."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out), bounded(gib):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    lines = err.getvalue().splitlines()
    assert status in (0, 1, 2), (status, lines)
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == (status == 2), lines
    assert "Traceback" not in err.getvalue()
    _count("command", str(status))
    return status, lines


def _count(target: str, outcome: str) -> None:
    tried[f"{target} {outcome}"] = tried.get(f"{target} {outcome}", 0) + 1
