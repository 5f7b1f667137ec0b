"""How this process keeps its memory where the CPU computes."""

import ctypes

import jax

# Of <malloc.h>, with what they are set to: nothing large is mapped apart, nothing given back.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_SETTINGS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


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
