"""Packs as submitit's jobs: each runs the program's own command, here or on a cluster."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.study.packs import Pack
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_atomically, write_json
from stlm_jax.runtime.lock import only_here

LOG, JOBS = "log.txt", "jobs"  # of a pack; of a study
_LOCK, _PID = "job.lock", "job.pid"  # the latter: of the program itself
_QUEUED = "queued.json"  # in the folder of jobs: the number of each pack's last
_MINUTES_HERE = 60 * 24 * 365  # local jobs end by themselves
_MINUTES, _AGAIN = 60 * 24, 30  # of a cluster's jobs, and how often one whose time is up is queued
_GENERAL = ("name", "timeout_min", "mem_gb", "nodes", "tasks_per_node", "cpus_per_task",
            "gpus_per_node")  # fmt: skip
_DEVICES = "CUDA_VISIBLE_DEVICES"  # which submitit's local jobs would lack
_AT_WORK = "is at work in it: wait for its end or stop it"


class PackJob:
    """What submitit calls, in a process of its own: the command of a pack.

    The command goes on from its checkpoints, so that a job that was pre-empted is started again as
    it is.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str | None]):
        """Runs `command`, which works in `folder`; variables that are None are taken out."""
        self.command, self.folder = list(command), folder
        self.environment = dict(environment)

    def __call__(self) -> int:
        """The command's exit status; negative where a signal has killed it."""
        environment = {**os.environ, **{k: v for k, v in self.environment.items() if v is not None}}
        for name, value in self.environment.items():
            if value is None:
                environment.pop(name, None)
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_here(self.folder / _LOCK, _AT_WORK), (self.folder / LOG).open("ab") as log:
            (self.folder / _PID).unlink(missing_ok=True)  # of one that was killed
            # Apart from the terminal, whose Ctrl-C is the sweep's: a second signal would end the
            # program before it has saved.
            process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            write_atomically(self.folder / _PID, str(process.pid))
            try:
                return process.wait()
            except BaseException:
                process.terminate()  # it saves, even where nobody waits for it any longer
                process.wait()
                raise

    def checkpoint(self) -> Any:
        """What SLURM is to queue again when the job is pre-empted."""
        return submitit().helpers.DelayedSubmission(self)


def submitit() -> Any:
    """The library."""
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed: run pip install 'stlm_jax[sweep]'") from None
    return submitit


class Submitter:
    """Has submitit run packs, and knows those jobs of a cluster that an earlier start has queued.

    Attributes:
        earlier: by pack, jobs that are not over.
    """

    def __init__(self, kind: str, folder: Path, options: Mapping[str, str]):
        """Opens the folder of its files.

        Args:
            kind: `local` or `slurm`.
            folder: for its files.
            options: of `update_parameters`; those of SLURM alone have names such as `partition`.
        """
        self._kind, self._folder = kind, folder
        self._executor = _executor(kind, folder, options)
        self._queued: dict[str, str] = {}
        self.earlier: dict[str, Any] = {}
        if kind == "slurm":
            with contextlib.suppress(OSError, ValueError):
                self._queued = read_json(folder / _QUEUED)
            for name, number in self._queued.items():
                job = submitit().SlurmJob(folder=folder, job_id=number)
                if not job.done():
                    self.earlier[name] = job

    def __call__(self, pack: Pack, command: list[str]) -> Any:
        """Submitit's job of a pack."""
        devices = {_DEVICES: os.environ.get(_DEVICES)} if self._kind == "local" else {}
        with _deaf() if self._kind == "local" else contextlib.nullcontext():
            job = self._executor.submit(PackJob(command, pack.folder, devices))
        self._queued[pack.name] = job.job_id
        write_json(self._folder / _QUEUED, self._queued)
        return job


def _executor(kind: str, folder: Path, options: Mapping[str, str]) -> Any:
    library = submitit()
    try:
        if kind == "local":
            made = library.AutoExecutor(folder=folder, cluster=kind)
            made.update_parameters(timeout_min=_MINUTES_HERE)
        else:
            made = library.AutoExecutor(folder=folder, cluster=kind, slurm_max_num_timeout=_AGAIN)
            named = {k if k in _GENERAL else f"slurm_{k}": v for k, v in options.items()}
            wanted = {"timeout_min": _MINUTES, "name": "stlm_jax"}
            made.update_parameters(**wanted | {k: _number(v) for k, v in named.items()})
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise UserError(f"--executor={kind}: {' '.join(str(error).split())}") from error
    return made


def _number(text: str) -> Any:
    return int(text) if text.isdecimal() else text


def is_at_work(folder: Path) -> bool:
    """Whether a job, of whatever study, works in a pack's folder on this machine."""
    if not folder.is_dir():
        return False
    try:
        with only_here(folder / _LOCK, _AT_WORK):
            return False
    except UserError:
        return True


def outcome(job: Any, log: Path) -> str:
    """Why a job that is over failed, in one line; empty where it did not."""
    try:
        status = job.result()
    except submitit().core.utils.UncompletedJobError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"its job ended without a result ({lines[0] if lines else type(error).__name__})"
    if status == 0:
        return ""
    if status < 0:
        return f"killed by signal {-status}, see {log}"
    return _last_line(log) or f"ended with status {status}, see {log}"


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return (errors or said or [""])[-1].removeprefix("error: ")
    return ""


def stop(folder: Path) -> bool:
    """Has the program that works in a pack's folder, on this machine, save and end, if one does."""
    if is_at_work(folder):
        with contextlib.suppress(OSError, ValueError):  # it has not begun
            os.kill(int((folder / _PID).read_text()), signal.SIGTERM)
            return True
    return False


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started meanwhile does not hear Ctrl-C: submitit would end it within a second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
