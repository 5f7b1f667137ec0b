"""Pythons beside the tests': on simulated devices, and two at once for what they do together."""

import os
import pathlib
import socket
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def python(code, *arguments, **environment):
    """What a Python says that runs a program of the tests, which must end well."""
    places = (REPOSITORY, REPOSITORY / "tests")
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def run_on_four_devices(code):
    """Runs a program on four simulated devices, which must end well."""
    python(code, XLA_FLAGS=simulated(4), JAX_PLATFORMS="cpu")


def simulated(devices):
    """The flags of XLA, with so many simulated devices."""
    known = os.environ.get("XLA_FLAGS", "")
    return f"{known} --xla_force_host_platform_device_count={devices}"


def in_two_processes(arguments_of, environment_of=lambda number: {}):
    """Status, stdout and stderr of two Pythons.

    `arguments_of` and `environment_of` give those of process 0 and of process 1.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments_of(number))],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(REPOSITORY),
                **environment_of(number),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def flags(port, number):
    """Those that make a process one of two."""
    return [f"--coordinator=localhost:{port}", "--processes=2", f"--process={number}"]


def free_port(least=1024):
    """A port that nobody listens at, the same for the whole of a run of tests."""
    for port in range(least + os.getpid() % 2048, 2**16):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)):
                return port
    raise AssertionError("no port is free")
