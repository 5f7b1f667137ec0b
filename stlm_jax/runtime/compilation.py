"""How this package's programs are compiled."""

import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.paths import in_bucket

# XLA's scheduler for CPU favours operations that could run side by side, of which few cores have
# no use: the student's gradient took a quarter more memory, and 5 % more time on two cores.
CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

DEFAULT_PRECISION = "default"  # of config.precision: the device's own


def jit(function: Callable, **arguments: Any) -> Any:
    """`jax.jit` with this package's compiler options, for a program's outermost function.

    Args:
        function: to be compiled for the default backend.
        **arguments: of `jax.jit`.
    """
    return jax.jit(function, compiler_options=_options(jax.default_backend()), **arguments)


def use_matmul_precision(name: str) -> None:
    """Has the whole process multiply float32 matrices, and convolve, as `config.precision` says.

    `default` leaves it to jax's own settings and the device. All threads are meant, so that it is
    no context.
    """
    if name != DEFAULT_PRECISION:
        jax.config.update("jax_default_matmul_precision", name)


def matmul_precision(name: str) -> contextlib.AbstractContextManager:
    """Has what is traced in the context multiply as `config.precision` says."""
    if name == DEFAULT_PRECISION:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(name)


def compile_apart(
    program: Any, *arguments: Any, stop: Callable[[], bool] = lambda: False
) -> jax.stages.Compiled:
    """Compiles a program while Ctrl-C and SIGTERM are heard; its calls then compile nothing.

    The compiler hears nothing for minutes, so it works in a thread, which an interrupted command
    leaves behind.

    Args:
        program: what `jit` gave.
        *arguments: of its call, or their shapes.
        stop: looked at several times a second; once it is true, Interrupted is raised.
    """
    result: concurrent.futures.Future[jax.stages.Compiled] = concurrent.futures.Future()

    def work() -> None:
        try:
            result.set_result(program.lower(*arguments).compile())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    while not concurrent.futures.wait([result], timeout=0.1).done:
        if stop():
            raise Interrupted("stopped while compiling")
    return result.result()


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
        if in_bucket(folder):  # JAX itself writes there, XLA's own caches know local files only
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
        else:
            _forget_damaged(folder)


def _forget_damaged(folder: Path) -> None:
    """Removes programs that a process was writing when it was killed, or the disk was full.

    JAX would compile each anew, with a warning, at every start, and write it never again.
    """
    from jax._src.compilation_cache import decompress_executable  # zlib's or zstandard's

    for path in folder.glob("*-cache"):
        try:
            decompress_executable(path.read_bytes())
        except OSError:  # JAX will say so
            continue
        except Exception:  # the library's own
            path.unlink(missing_ok=True)
