"""One process at a time in a folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import named
from stlm_jax.runtime.paths import in_bucket
from stlm_jax.runtime.progress import note

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_TRAINS = (
    "trains in it: wait for its end, stop it, or use another --workdir (--mode=evaluate and "
    "--mode=predict may run beside it)"
)


@contextlib.contextmanager
def only_here(path: Path, in_use: str = _TRAINS) -> Iterator[None]:
    """Holds the lock file `path`, which names this process, while the context is open.

    Where another process holds it, a UserError names that one, and says `in_use` of it. The system
    releases the lock of a process that ends in whatever way; a file that it left behind locks
    nobody out. A bucket has no locks: where a file is there, a warning names its writer.
    """
    if in_bucket(path):
        with _marked(path):
            yield
        return
    file = _locked(path, in_use)
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
            os.close(file)


@contextlib.contextmanager
def _marked(path: Path) -> Iterator[None]:
    with contextlib.suppress(FileNotFoundError):
        note(
            f"warning: {path.parent}: {path.read_text().strip()} works in it, or was killed there, "
            "which a bucket does not tell: start no second one"
        )
    path.write_bytes(_own_name())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _own_name() -> bytes:
    return f"process {os.getpid()} on {socket.gethostname()}\n".encode()


def _locked(path: Path, in_use: str) -> int | None:
    """The descriptor of the file, locked; None, and a note, where files cannot be locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is None:
                raise OSError(0, "no locks on this system")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 300).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise UserError(f"{path.parent}: {owner} {in_use}") from None
        except OSError as error:
            os.close(file)
            note(f"warning: {path} cannot be locked ({error.strerror}): start no second training")
            return None
        if _is_still(file, path):
            try:
                with named(path):
                    os.ftruncate(file, 0)
                    os.write(file, _own_name())
            except OSError:
                path.unlink(missing_ok=True)
                os.close(file)
                raise
            return file
        os.close(file)  # its owner has just removed it


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
