"""The files of a search, and what says with what it was begun.

WORKDIR/search.json, objective.png, compilation_cache/
WORKDIR/search/journal.log, trials.csv, table.md, table.json
WORKDIR/batches/0008/batch.json and TRIAL/, a work folder each, with pseudo_validation.json
"""

import contextlib
import datetime
import importlib.metadata
import json
import platform
import re
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from launch.tuning.options import Options
from launch.tuning.space import Space
from stlm_jax.config import flatten, of_values
from stlm_jax.runtime import files
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.progress import note
from stlm_jax.workdir import git_revision

SEARCH = "search.json"
PICTURE = "objective.png"
STUDY = "search"  # the folder of Optuna's journal and of the tables
BATCHES = "batches"
BATCH = "batch.json"
OWNER = "owner"  # locked by the search that has a batch
BUSY = "busy"  # locked by the process that trains it
RESULT = "pseudo_validation.json"
ASKING, ENDING = "asking", "ending"  # locked while trials are asked for, and at the end

_POLL = 0.5  # seconds
# Keys that change nothing of a trial's value: they may differ when a search goes on.
_FREE = re.compile(
    r"(checkpoint|log|mesh|profile|ensemble|report|predict)\..+"
    r"|data\.(root|cache_gib)|remat|teacher\.sharding"
)
_LIBRARIES = ("optuna", "jax", "flax", "optax", "numpy", "scipy", "pillow")


def settle(options: Options, space: Space) -> None:
    """Writes what the search is; refuses a folder of another, naming what differs."""
    path = options.workdir / SEARCH
    now = {
        "base": str(options.base),
        "config": json.loads(options.config.to_json()),
        "space": str(space.file),
        "space_sha256": space.digest,
        "seed": options.seed,
        "objective": "pseudo_validation",
        "metric": options.metric,
        "git_revision": git_revision(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        "command": shlex.join(options.command),
        "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if not path.is_file():
        write_json(path, now)
        return
    before = read_json(path)
    differing = [
        f"--{name}={before.get(name)}, now it is {now[name]}"
        for name in ("seed", "metric", "objective")
        if before.get(name) != now[name]
    ]
    if before.get("space_sha256") != space.digest:
        differing.append(f"--space={before.get('space')}, whose content differs from {space.file}")
    old, new = (flatten(ml_collections.ConfigDict(each["config"])) for each in (before, now))
    for key in [*new, *(key for key in old if key not in new)]:
        if old.get(key) != new.get(key) and not _FREE.fullmatch(key):
            differing.append(f"config.{key}={old.get(key)}, now it is {new.get(key)}")
    if differing:
        raise UserError(
            f"{options.workdir} is of a search with {'; '.join(differing)}: use another --workdir, "
            "or what it was begun with"
        )
    if before.get("git_revision") != now["git_revision"]:
        note(
            f"warning: {path}: begun with the source at {before.get('git_revision')}, now it is "
            f"{now['git_revision']}: trials may not be comparable"
        )


def base_of(workdir: Path) -> ml_collections.ConfigDict:
    """The configuration of a search's base."""
    return of_values(read_json(workdir / SEARCH)["config"])


def run_name(number: int) -> str:
    """What a trial's run is called."""
    return f"trial_{number:04}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a search."""
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: use another --workdir") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}): use another --workdir") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not an object with keys: use another --workdir")
    return content


@contextlib.contextmanager
def in_turn(path: Path, what: str) -> Iterator[None]:
    """Holds a lock, and waits where another process does; after a moment a line says for what."""
    said, begin = False, time.monotonic()
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(only_here(path, what))
            except UserError as error:
                if not said and time.monotonic() - begin > 2:
                    note(f"waiting: {error}")
                    said = True
                time.sleep(_POLL)
                continue
            yield
            return


def claim(folder: Path, taken_over: str, stack: contextlib.ExitStack) -> bool:
    """Takes a batch for this process while `stack` is open; false where another search has it.

    A search of this host that was killed has it no more. One of another host has it as long as its
    file is there: whether it still runs cannot be told from here, but for `taken_over`'s.
    """
    path = folder / OWNER
    with contextlib.suppress(FileNotFoundError):
        host = path.read_text(encoding="utf-8").strip().rpartition(" on ")[2]
        if host not in ("", socket.gethostname(), taken_over):
            return False
    try:
        stack.enter_context(only_here(path, "has this batch"))
    except UserError:
        return False
    return True
