"""`config.json` and `run.json`: what a work folder was made with."""

import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax.config import default
from stlm_jax.config_checks import flatten
from stlm_jax.errors import UserError
from stlm_jax.files import write_atomically

CONFIG_NAME = "config.json"
RUN_NAME = "run.json"
CACHE_NAME = "compilation_cache"
_LIBRARIES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy",
    "scikit-learn", "pillow",
)  # fmt: skip
# Keys that do not change what a step of training computes.
_FREE_GROUPS = ("evaluate", "predict", "log", "checkpoint", "report")
_FREE_KEYS = (
    "data.root", "data.categories", "data.demo", "data.train_dir", "data.test_good_dir",
    "data.test_defect_dir", "data.mask_dir", "data.csv", "data.on_error",
    "data.cache_gib", "calibration.quantile", "calibration.pixel_quantile",
)  # fmt: skip
# Where the rates are constant these say when to stop: a longer run begins with the steps of a
# shorter one. The first stands for train.steps_of's keys, too.
_LENGTHS = ("train.steps", "train.epochs")


def check_same_run(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Refuse a work folder that was trained with another configuration.

    Raises:
        UserError: naming the first key that differs and both values, or `config.json` is damaged.
    """
    path = workdir / CONFIG_NAME
    if not path.is_file():
        return
    # A key that came after the run was made had the effect of its default.
    before = flatten(_as_stored(default())) | flatten(read_config(path))
    now = flatten(_as_stored(config))
    for key in [*now, *(k for k in before if k not in now)]:
        if key in _FREE_KEYS or key.split(".")[0] in _FREE_GROUPS:
            continue
        if config.optimizer.decay == "none" and key.startswith(_LENGTHS):
            continue
        old, new = before.get(key, "absent"), now.get(key, "absent")
        if old != new:
            raise UserError(
                f"{workdir} was trained with config.{key}={_shown(old)}, now it is {_shown(new)}: "
                f"use another --workdir, or --config.{key}={_shown(old)} to go on with this one"
            )


def read_config(path: Path) -> ml_collections.ConfigDict:
    """The configuration that a run was trained with.

    Raises:
        UserError: `path` is absent or damaged.
    """
    try:
        return ml_collections.ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it says what the run was trained with") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a configuration ({error}); use another --workdir") from error


def write(workdir: Path, config: ml_collections.ConfigDict, command: tuple[str, ...]) -> None:
    """Write both files; the descriptions of earlier starts are kept under `previous`."""
    write_atomically(workdir / CONFIG_NAME, config.to_json(indent=2) + "\n")
    description = describe(config, command)
    description["previous"] = _earlier(workdir / RUN_NAME)
    write_atomically(workdir / RUN_NAME, json.dumps(description, indent=2) + "\n")


def use_compilation_cache(workdir: Path) -> None:
    """Keep compiled programs in the work folder, unless the user has chosen a cache already.

    A resumed run then runs the very programs that it was stopped in, which on a GPU matters for
    its numbers too, and starts in seconds.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / CACHE_NAME))


def describe(config: ml_collections.ConfigDict, command: tuple[str, ...]) -> dict[str, Any]:
    """Seed, source revision, versions, devices, command line and start time of this process."""
    import jax

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
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _earlier(path: Path) -> list[dict[str, Any]]:
    try:
        last = json.loads(path.read_text(encoding="utf-8"))
        return [*last.pop("previous", []), last]
    except (OSError, ValueError, AttributeError):
        return []


def _as_stored(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(json.loads(config.to_json()))


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
