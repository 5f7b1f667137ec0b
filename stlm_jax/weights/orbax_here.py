"""How Orbax behaves in this package: it logs nothing, and a checkpoint is one process's."""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint._src.multihost import multihost

_FOLDER = str(Path(ocp.__file__).parent)


class _NotOrbax(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.pathname.startswith(_FOLDER)


def silence() -> None:
    """Drops what Orbax prints of errors that are handled: its log, and tracebacks of its store.

    Where an array of a checkpoint is damaged or cannot be written, the store's threads tell a loop
    that has ended of the others.
    """
    logging.getLogger("absl").addFilter(_NotOrbax())
    sys.excepthook = functools.partial(_unless_of_a_save, sys.excepthook)
    sys.unraisablehook = functools.partial(_unless_of_a_read, sys.unraisablehook)


def _unless_of_a_save(
    tell: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: Any
) -> None:
    if not _is_of_the_store(error):
        tell(kind, error, trace)


def _unless_of_a_read(tell: Callable[..., Any], unraisable: Any) -> None:
    if not _is_of_the_store(unraisable.exc_value):
        tell(unraisable)


def _is_of_the_store(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def be_alone() -> None:
    """Has Orbax take this process, of several, for the only one: it waits for none of the others.

    For Orbax a checkpoint is of all processes, arrays of NumPy are the same in all and the first
    writes them; there are no options for checkpoints that are one process's.
    """
    if jax.process_count() > 1:
        multihost.process_index, multihost.process_count = lambda: 0, lambda: 1
        multihost.should_skip_process_sync = lambda processes=None: True
        multihost.get_barrier_sync_fn = lambda **_: lambda **_: None
        multihost.is_jax_distributed_client_initialized = lambda: False
