"""A bucket for tests, served on loopback by gcp-storage-emulator in a process of its own.

The emulator lacks what tensorstore builds on when it writes an object again: it does not say the
generation of an object that is read, and ignores conditions on it. Both are added here as Google
documents them (`x-goog-generation`, `ifGenerationMatch`, `ifGenerationNotMatch`).
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from http import HTTPStatus

import pytest

BUCKET = "gs://bucket"


@contextlib.contextmanager
def served_bucket(log):
    """The environment in which `gs://bucket`, empty at first, is the emulator's; skips without it.

    What the emulator prints goes to the file `log`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, __file__, str(port)]
    environment = {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # else tensorstore asks for the machine's account
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks an interface that is not emulated
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():  # before gcsfs is imported, which reads some
            patch.setenv(name, value)
        for name in ("gcsfs", "gcp_storage_emulator"):
            pytest.importorskip(name, reason=f"no bucket to test with: {name} is not installed")
        with _running(command, port, log):
            yield dict(os.environ)


@contextlib.contextmanager
def _running(command, port, log):
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            _wait(port, server)
            _forget()
            yield
        finally:
            _forget()
            server.terminate()


def _wait(port, server):
    for _ in range(200):
        if server.poll() is not None:
            raise RuntimeError("the emulator has ended")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("the emulator does not answer")


def _forget():
    """Has no file system of another server used."""
    import fsspec
    from etils.epath import backend

    from stlm_jax.runtime import bucket

    bucket._file_system.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    fsspec.get_filesystem_class("gcs").clear_instance_cache()


def _with_generations(handler):
    from gcp_storage_emulator.exceptions import NotFound

    def handle(request, response, storage, *arguments, **options):
        name = request.params.get("object_id") or request.query.get("name", [""])[0]
        try:
            current = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
        except NotFound:
            current = "0"
        conditions = [request.query.get(f"ifGeneration{kind}") for kind in ("Match", "NotMatch")]
        if conditions[0] and conditions[0] != [current]:
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif conditions[1] and conditions[1] == [current]:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            if current != "0":
                response["x-goog-generation"] = current
            handler(request, response, storage, *arguments, **options)

    return handle


def _serve(port):
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    objects.insert = _with_generations(objects.insert)
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            if handler.__module__ == objects.__name__ and handler is not objects.batch:
                handlers[method] = _with_generations(handler)
    server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket").run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
