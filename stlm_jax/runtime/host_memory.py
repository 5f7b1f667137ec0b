"""How this process keeps its memory where the CPU computes."""

import ctypes
from pathlib import Path

import jax

# Of <malloc.h>, with what they are set to: nothing large is mapped apart, nothing given back.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# The machine's memory, whose line is the first, and limits of containers (cgroup 2 and 1).
_LIMITS = (
    "/proc/meminfo",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_SETTINGS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def total_memory() -> int | None:
    """Bytes that programs on the default device may take at most; None where that is not known.

    Of the CPU it is the machine's memory or its container's limit.
    """
    if jax.default_backend() != "cpu":
        return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    known = [_number(Path(file)) for file in _LIMITS]
    return min((number for number in known if number), default=None)


def _number(file: Path) -> int | None:
    """The first number in a file, in bytes."""
    try:
        words = file.read_text().split()
    except OSError:
        return None
    for word in words:
        if word.isdecimal():
            return int(word) * (1024 if "kB" in words else 1)
    return None


def keep_freed_memory() -> bool:
    """Makes glibc keep what a program frees, where the default backend is the CPU.

    XLA allocates a program's buffers anew at each call. By default they come from the system and go
    back to it, which clears every page each time: a third of the demo's training step. Kept in one
    heap they are used again; the process gets no larger than its peak. Only the main thread's heap
    can hold buffers above 64 MB, so programs are also made to start in the thread that calls them.
    To be called before JAX makes its backends, which read that option once.

    Returns:
        Whether it was done; other backends and C libraries are left as they are.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() != "cpu":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(*setting) for setting in _SETTINGS])
