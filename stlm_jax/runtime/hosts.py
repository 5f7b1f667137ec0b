"""The processes of one run, usually one a host, and how this one finds the others."""

import os
import socket
import time
from typing import NamedTuple

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import be_quiet, note

PATIENCE = 300  # seconds that a process waits for the first one, jax's own default
NAME_PATIENCE = 30  # seconds, until a name that is not known is taken for a wrong one


class Hosts(NamedTuple):
    """Where the processes of a run meet; by default as the cluster that they are in says.

    Attributes:
        coordinator: HOST:PORT of the first process; empty: as the cluster says.
        processes: how many there are.
        process: which of them this is, from 0.
    """

    coordinator: str = ""
    processes: int = 1
    process: int = 0


def parse_hosts(coordinator: str | None, processes: str | None, process: str | None) -> Hosts:
    """The texts of `--coordinator`, `--processes` and `--process`, None where one isn't given."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name}" for name, text in given.items() if text is None]
    if len(missing) == len(given):
        return Hosts()
    if missing:
        there = next(f"--{name}={text}" for name, text in given.items() if text is not None)
        raise UserError(
            f"{there}: {' and '.join(missing)} must be given, too, or none of the three: a cluster "
            "(Cloud TPU, SLURM, Kubernetes) is found without them"
        )
    host, _, port = str(coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator={coordinator}: must be HOST:PORT of the first process, such as "
            "10.0.0.1:8476"
        )
    count = _whole("processes", str(processes), 1)
    return Hosts(str(coordinator), count, _whole("process", str(process), 0, count - 1))


def _whole(name: str, text: str, least: int, most: int = 2**16) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        words = "counts from 0 and must be below --processes" if name == "process" else "must be"
        raise UserError(f"--{name}={text}: {words}, a whole number in {least}..{most}")
    return int(text)


def join(hosts: Hosts) -> None:
    """Makes this process one of the run's, before any device is looked at.

    Where there is one process, or it has joined before, nothing happens. The first is the one that
    says how the run goes.
    """
    import jax

    if jax.distributed.is_initialized():
        return
    if not hosts.coordinator:
        _join_cluster()
    elif hosts.processes > 1:
        _meet(hosts)
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.processes,
            hosts.process,
            # What the flags say is all: else SLURM's number would choose one of the devices.
            cluster_detection_method="deactivate",
            initialization_timeout=PATIENCE,
        )
    if jax.distributed.is_initialized() and jax.process_index() > 0:
        be_quiet()


def _join_cluster() -> None:
    import jax

    try:
        if _processes_of_cluster() > 1:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this cluster do not find each other: {error}: tell them by "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error


def _processes_of_cluster() -> int:
    """How many processes the cluster started, as far as jax knows clusters; 1 outside of them."""
    # There is no public way to ask without joining, and one process is not to join.
    from jax._src.clusters import ClusterEnv

    for cluster in ClusterEnv._cluster_types:
        if cluster.opt_in_only_method:
            continue
        if cluster.name == "k8s" and "JOB_COMPLETION_INDEX" not in os.environ:
            continue  # a pod that is none of several: jax would ask for the job that it is not in
        if cluster.is_env_present():
            return cluster.get_process_count()
    return 1


def _meet(hosts: Hosts) -> None:
    """Refuses a coordinator that cannot be: jax's own client would end the process with a trace."""
    host, _, port = hosts.coordinator.rpartition(":")
    if hosts.process == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise UserError(
                f"--coordinator={hosts.coordinator}: {error.strerror}: give another port"
            ) from None
        note(f"waiting at {hosts.coordinator} for {hosts.processes - 1} further process(es)")
        return
    begin = time.monotonic()
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            limit = NAME_PATIENCE if isinstance(error, socket.gaierror) else PATIENCE
            if time.monotonic() - begin > limit:
                raise UserError(
                    f"--coordinator={hosts.coordinator}: {error.strerror or error}: process "
                    f"{hosts.process} finds no first process there, start it with --process=0"
                ) from None
        time.sleep(0.2)


def require_one(doing: str) -> None:
    """Refuses to do in several processes what each would do by itself."""
    import jax

    if jax.process_count() > 1:
        raise UserError(
            f"{doing} is done by one process and there are {jax.process_count()}: start it on one "
            "host, by itself"
        )
