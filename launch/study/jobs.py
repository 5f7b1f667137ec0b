"""Packs as submitit's jobs: each runs the program's own command, here or on a cluster."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.lock import only_here

LOG, JOBS = "log.txt", "jobs"  # of a pack; of a study
_LOCK = "job.lock"
_MINUTES = 60 * 24 * 365  # local jobs end by themselves
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
            process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
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


def executor(kind: str, folder: Path, options: Mapping[str, str]) -> Any:
    """Submitit's, `local` or `slurm`.

    Args:
        kind: which.
        folder: for its files.
        options: of `update_parameters`, texts; those of SLURM have names such as `partition`.
    """
    library = submitit()
    try:
        made = library.AutoExecutor(folder=folder, cluster=kind)
        if kind == "local":
            made.update_parameters(timeout_min=_MINUTES)
        else:
            general = {k: v for k, v in options.items() if k in _GENERAL}
            further = {f"slurm_{k}": v for k, v in options.items() if k not in _GENERAL}
            made.update_parameters(**{k: _number(v) for k, v in {**general, **further}.items()})
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise UserError(f"--executor={kind}: {' '.join(str(error).split())}") from error
    return made


_GENERAL = ("name", "timeout_min", "mem_gb", "nodes", "tasks_per_node", "cpus_per_task",
            "gpus_per_node")  # fmt: skip


def _number(text: str) -> Any:
    return int(text) if text.isdecimal() else text


def environment() -> dict[str, str | None]:
    """What a local job is to have as this process has it."""
    return {_DEVICES: os.environ.get(_DEVICES)}


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


def cancel(job: Any) -> None:
    """Stops a local job, which saves."""
    with contextlib.suppress(Exception):  # it is over, or was never there
        job.cancel()
    sys.stderr.flush()
