"""What every command that computes does before its first program."""

import os
from pathlib import Path

from stlm_jax.runtime import libtpu
from stlm_jax.runtime.compilation import use_compilation_cache, use_matmul_precision
from stlm_jax.runtime.host_memory import keep_freed_memory
from stlm_jax.runtime.hosts import Hosts, join


def prepare(precision: str, cache: Path | None, hosts: Hosts | None = None) -> None:
    """Settles how this process computes.

    Args:
        precision: `config.precision`.
        cache: the folder for compiled programs; None keeps none.
        hosts: the processes of its run; None: the command is one process.
    """
    os.environ[libtpu.ARGUMENTS] = libtpu.arguments(os.environ.get(libtpu.ARGUMENTS, ""))
    if hosts is not None:
        join(hosts)
    if cache is not None:
        use_compilation_cache(cache)
    use_matmul_precision(precision)
    keep_freed_memory()
