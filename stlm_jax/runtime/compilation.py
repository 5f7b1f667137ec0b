"""How this package's programs are compiled."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# XLA's scheduler for CPU favours operations that could run side by side, of which few cores have
# no use: the training step took twice the memory and, on two cores, a quarter more time.
CPU_OPTIONS = {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def jit(function: Callable, **arguments: Any) -> Any:
    """`jax.jit` with this package's compiler options, for a program's outermost function.

    Args:
        function: to be compiled for the default backend.
        **arguments: of `jax.jit`.
    """
    return jax.jit(function, compiler_options=_options(jax.default_backend()), **arguments)


@functools.cache
def _options(backend: str) -> dict[str, Any]:
    """The options for a backend, or none where this jaxlib does not know them."""
    if backend != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def use_compilation_cache(folder: Path) -> None:
    """Keeps compiled programs in `folder`, unless the user has chosen a cache already.

    A resumed run then runs the very programs that it was stopped in, which on a GPU matters for
    its numbers too, and starts in seconds.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
