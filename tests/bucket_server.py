"""A bucket for tests, served on loopback by gcp-storage-emulator in a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import time

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
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1"]
    command += [f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"]
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
