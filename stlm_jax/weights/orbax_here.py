"""How Orbax behaves in this package: it logs nothing, and a checkpoint is one process's."""

import logging
import sys
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
    """Drops what is printed as whole tracebacks of errors that are handled.

    It is Orbax's log, and what the threads of its array store say that read on when one of them
    has found damage and nobody waits for the others.
    """
    logging.getLogger("absl").addFilter(_NotOrbax())
    before = sys.unraisablehook

    def told(unraisable: Any) -> None:
        value = unraisable.exc_value
        if not (isinstance(value, RuntimeError) and str(value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = told


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
