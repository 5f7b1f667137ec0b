"""The folder of a run: what its files are called, and what says with what it was made.

WORKDIR/config.json, run.json, data_check.json, compilation_cache/, lock (while a process trains)
An ensemble's runs have WORKDIR/RUN/, each like the folder of a run alone.
WORKDIR/CATEGORY/checkpoints/, calibration.json, depth.json, metrics.jsonl, TensorBoard events
WORKDIR/results/report.html, table.md, table.csv, metrics.json, details.json, replicates.npz
WORKDIR/results/panels/
WORKDIR/results/predict/CATEGORY/scores.csv, scores.json and pictures, unless config.predict.output
names another folder
"""

import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import KEYS, default, flatten, is_like, is_other_training, key_of, of_values
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_atomically, write_json
from stlm_jax.runtime.paths import in_bucket

CONFIG = "config.json"
RUN = "run.json"
DATA_CHECK = "data_check.json"
LOCK = "lock"  # of the process that trains
COMPILATION_CACHE = "compilation_cache"
CHECKPOINTS = "checkpoints"
CALIBRATION = "calibration.json"
DEPTH = "depth.json"
DIVERGED = "diverged.json"  # of a training of several that was stopped
TRAINING_METRICS = "metrics.jsonl"
PROFILE = "profile"
RESULTS = "results"
REPORT = "report.html"
METRICS, DETAILS = "metrics.json", "details.json"
REPLICATES = "replicates.npz"
TABLE, TABLE_CSV = "table.md", "table.csv"
PANELS = "panels"
PREDICTIONS = "predict"
SCORES_CSV, SCORES_JSON = "scores.csv", "scores.json"
SEEDS = "seeds.json"  # of runs that are compared
_COMPLETE = "commit_success.txt"  # in a checkpoint in a bucket

_FACTS = {  # of `run.json`, that are read again
    "previous": list, "versions": dict, "git_revision": str, "started": str, "batch_devices": int,
}  # fmt: skip
_LIBRARIES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy",
    "scikit-learn", "pillow",
)  # fmt: skip


def trained_categories(workdir: Path) -> list[str]:
    """The names of the categories that have checkpoints, sorted."""
    folders = sorted(folder.parent for folder in workdir.glob(f"*/{CHECKPOINTS}"))
    return [folder.name for folder in folders if newest_step(folder) is not None]


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in a category's `folder`, unopened; None without one."""
    return max(saved_steps(folder), default=None)


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a category's `folder`, unopened."""
    steps = [p for p in folder.glob(f"{CHECKPOINTS}/*") if p.name.isdecimal()]
    if in_bucket(folder):  # where nothing is renamed: Orbax marks what is complete
        steps = [p for p in steps if (p / _COMPLETE).is_file()]
    return [int(p.name) for p in steps]


def check_same_run(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a work folder that was trained with another configuration, naming what differs.

    Where no checkpoint was saved, nothing is settled: the start that failed may be mended.
    """
    path = workdir / CONFIG
    if not path.is_file() or not trained_categories(workdir):
        return
    # A key that came after the run was made had the effect of its default.
    before = flatten(_as_stored(default())) | flatten(read_config(path))
    now = flatten(_as_stored(config))
    changes, remedies = [], []
    for key in [*now, *(k for k in before if k not in now)]:
        old, new = before.get(key, "absent"), now.get(key, "absent")
        if old != new and is_other_training(key, config.optimizer.decay, old, new):
            changes.append(f"config.{key}={_shown(old)}, now it is {_shown(new)}")
            remedies.append(f"--config.{key}={_shown(old)}")
    if changes:
        raise UserError(
            f"{workdir} was trained with {'; '.join(changes)}: use another --workdir, or "
            f"{' '.join(remedies)} to go on with this one, which --workdir={workdir} without "
            "--config=FILE takes from there"
        )


def stored_config(workdir: Path) -> ml_collections.ConfigDict:
    """The configuration that the run in `workdir` was trained with.

    A key that came after the run was made is its default.
    """
    path = workdir / CONFIG
    stored = read_config(path)
    try:
        return of_values(stored)
    except (TypeError, ValueError, AttributeError) as error:  # a value in place of a group
        raise UserError(f"{path}: not a configuration of this release ({error})") from error


def read_config(path: Path) -> ml_collections.ConfigDict:
    """The configuration that a run was trained with, from its `config.json`."""
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__}, not an object with keys")
        config = ml_collections.ConfigDict(content)
        for key, value in flatten(config).items():
            known = key_of(key)
            as_kept = tuple(value) if isinstance(value, list) else value
            if any(name.startswith(f"{key}.") for name in KEYS) or (
                known and not is_like(as_kept, known.default)
            ):
                raise TypeError(f"{key} is {value!r}"[:80])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it says what the run was trained with") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a configuration of this release ({error}); use another --workdir"
        ) from error
    return config


def read_run(workdir: Path) -> dict[str, Any]:
    """What `run.json` says of the run's last start; empty where it cannot be read.

    Of what readers look at, only values of the kind that is written are given.
    """
    try:
        content = read_json(workdir / RUN)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, _FACTS.get(k, object))}


def write_run(
    workdir: Path, config: ml_collections.ConfigDict, command: tuple[str, ...], **facts: Any
) -> None:
    """Writes `config.json` and `run.json`, which keeps earlier starts under `previous`.

    Args:
        workdir: the run's folder.
        config: of the run.
        command: the command line.
        **facts: what else `run.json` is to say of this start; JSON values.
    """
    write_atomically(workdir / CONFIG, config.to_json(indent=2) + "\n")
    last = read_run(workdir)
    earlier = [*last.pop("previous", []), last] if last else []
    write_json(workdir / RUN, {**describe_run(config, command), **facts, "previous": earlier})


def describe_run(config: ml_collections.ConfigDict, command: tuple[str, ...]) -> dict[str, Any]:
    """Seed, source revision, versions, devices, command line and start time of this process."""
    import jax  # here: a mistyped flag is answered without

    return {
        "seed": config.seed,
        "git_revision": git_revision(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "command": shlex.join(command),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def git_revision(folder: Path | None = None) -> str | None:
    """Commit of the source tree, with `-dirty` after it for changed files; None outside git."""
    folder = folder or Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty",
               "--exclude=*"]  # fmt: skip
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _as_stored(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(json.loads(config.to_json()))


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
