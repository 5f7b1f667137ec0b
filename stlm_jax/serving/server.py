"""The server's life: a socket, the models' thread, and an orderly end."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note
from stlm_jax.serving.app import make_app
from stlm_jax.serving.batching import Model
from stlm_jax.serving.options import Options, is_loopback, token_of
from stlm_jax.serving.service import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 256


class Server(uvicorn.Server):
    """uvicorn's, whose end by a signal is an ordinary one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal ends it once all is answered, a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def make_server(service: Service, token: str | None = None) -> Server:
    """The server of a service; it ends when the models' thread fails."""
    config = uvicorn.Config(
        make_app(service, token),
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        # What is received, waiting or being answered when it is to end has its own time bound.
        timeout_graceful_shutdown=int(service.options.timeout_s * 2) + 5,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; the system's choice of a free port where `port` is 0."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
    except OSError as error:
        raise UserError(f"--host={host}: no address of this machine ({error.strerror})") from None
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise UserError(
            f"--host={host} --port={port}: cannot listen there ({error.strerror}); give another"
        ) from None
    return opened


def run(options: Options, load: Callable[[str], Model]) -> int:
    """Serves until SIGTERM or Ctrl-C; the exit status, 0.

    A second signal is a KeyboardInterrupt.

    Args:
        options: how.
        load: makes a model of what `options.models` names.
    """
    token = token_of(options)
    opened = listen(options.host, options.port)
    address = _address(opened)
    if not is_loopback(options.host):
        note(
            f"warning: --host={options.host}: other machines reach this server, without "
            f"encryption{'' if token else ' and without a token (--token_file)'}"
        )
    service = Service(options, load)
    server = make_server(service, token)

    def end() -> None:
        server.should_exit = True

    note(f"listening at {address}; the models are being loaded, {address}/readyz says when done")
    service.start(end)
    server.run(sockets=[opened])
    if server.force_exit:
        raise KeyboardInterrupt
    ended = service.stop()
    if service.failure is not None:
        raise service.failure
    note("stopped; every request was answered")
    if not ended:
        # A compilation, which nothing interrupts, is not waited for.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _address(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
