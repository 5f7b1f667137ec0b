"""Checkpoints of a training run; the one module that knows Orbax.

A checkpoint of step k holds what belongs together: the student after k updates, the rest of the
training (optimiser, hyperparameters, key) and the position of the data iterator after k batches.
The student is an item of its own, so that prediction reads a third of the whole and another
optimiser does not make a trained model unreadable.

Each item is a nested dictionary of host arrays. Beside them lies a JSON table of every array's
shape, dtype and CRC-32. The table is what makes restoring strict: another model is told from a
damaged file, and a flipped bit, which the array store itself does not notice, is found.
"""

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import serialization, traverse_util

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.weights.shapes import require_finite

_SEPARATOR = "/"
_FORMAT = 2  # 1, of the last release: one item `state` for all, whose `hyper` was flat
_STUDENT, _TRAINING, _STATE, _META = "student", "training", "state", "meta"
_STUDENT_PARTS = ("params", "batch_stats")


@dataclass(frozen=True)
class Restored:
    """What a checkpoint held; the pytrees are those of the templates, with NumPy leaves.

    Attributes:
        step: updates done.
        student: `params` and `batch_stats`.
        training: the rest; None where it was not asked for.
        data: position of the data iterator, JSON values.
    """

    step: int
    student: Any
    training: Any
    data: Any


class Checkpoints:
    """The checkpoints of one category, in one folder.

    A save is complete or absent: Orbax writes to a temporary folder and renames it, or in a bucket
    marks it last, so a process killed at any moment leaves the previous checkpoint as it was. Saves
    are synchronous; when `save` returns the checkpoint is on disk.
    """

    def __init__(self, directory: Path | str, keep: int = 2, read_only: bool = False):
        """Opens `directory`, creating it unless `read_only`; the newest `keep` saves are kept."""
        self.directory = path_of(directory).absolute()
        self._manager: Any = None
        if read_only and not self.directory.is_dir():
            return
        with _quiet():
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                # When `save` returns, the state may be donated and the process be killed.
                enable_async_checkpointing=False,
                read_only=read_only,
                create=not read_only,
                # A reader must not remove what a training is writing at this moment.
                cleanup_tmp_directories=not read_only,
            )
            self._manager = ocp.CheckpointManager(os.fspath(self.directory), options=options)

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint folder, ascending."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def latest_step(self) -> int | None:
        """The newest of `steps()`, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, student: Any, training: Any, data: Any) -> None:
        """Writes checkpoint `step`; where the disk refuses, earlier ones are untouched.

        Args:
            step: updates done.
            student: {"params": …, "batch_stats": …}.
            training: a pytree of the other arrays.
            data: JSON values.
        """
        items = {
            name: _leaves(jax.device_get(tree))
            for name, tree in ((_STUDENT, student), (_TRAINING, training))
        }
        meta = {
            "format": _FORMAT,
            "step": step,
            "data": data,
            "leaves": {name: _table(flat) for name, flat in items.items()},
        }
        saved = {name: ocp.args.StandardSave(_nested(flat)) for name, flat in items.items()}
        try:
            with _quiet():
                args = ocp.args.Composite(**saved, meta=ocp.args.JsonSave(meta))
                self._manager.save(step, args=args, force=True)
                self._manager.wait_until_finished()
        except Exception as error:
            reason = _disk_problem(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.directory}: checkpoint {step} could not be written: {reason}; "
                f"{_last_good(self.latest_step())}, so free some space and run the command again"
            ) from error

    def restore(
        self, student: Any, training: Any = None, discard_damaged: bool = False
    ) -> Restored | None:
        """Reads the newest checkpoint that is whole, or None where there is none at all.

        Args:
            student: a pytree of arrays or `jax.ShapeDtypeStruct` that the result must equal in
                structure, shapes and dtypes.
            training: likewise; None leaves it unread.
            discard_damaged: delete newer checkpoints that were found damaged, so that their steps
                can be saved again.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                with _quiet():
                    restored = self._restore_step(step, student, training)
            except UserError:
                raise
            except Exception as error:  # whatever the array store raises on a broken file
                note(f"{self.directory / str(step)}: damaged, ignored ({first_line(error)})")
                damaged.append(step)
                continue
            if discard_damaged:
                for bad in damaged:
                    self._manager.delete(bad)
            return restored
        if damaged:
            raise UserError(
                f"{self.directory}: no checkpoint can be read (steps {damaged}); delete the folder "
                "to start this category again"
            )
        return None

    def _restore_step(self, step: int, student: Any, training: Any) -> Restored:
        meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        ).meta
        self._require_known_format(step, meta.get("format", 1))
        found = {}
        for name, template in ((_STUDENT, student), (_TRAINING, training)):
            if template is not None:
                found[name] = self._restore_item(step, name, template, meta)
        return Restored(step, found[_STUDENT], found.get(_TRAINING), meta["data"])

    def _restore_item(self, step: int, name: str, template: Any, meta: dict[str, Any]) -> Any:
        expected = _leaves(template)
        if meta.get("format", 1) == 1:
            item, saved = _STATE, meta["leaves"]
            paths = _paths_of_format_1(name, saved, expected)
        else:
            item, saved = name, meta["leaves"][name]
            paths = {path: path for path in saved}
        self._require_same_model(step, {paths[p]: saved[p] for p in paths}, expected)
        # Orbax restores an item only as a whole, into a tree of the very structure.
        target = {path: np.empty(shape, dtype) for path, (shape, dtype, _) in saved.items()}
        args = {item: ocp.args.StandardRestore(_nested(target))}
        tree = self._manager.restore(step, args=ocp.args.Composite(**args))[item]
        flat = traverse_util.flatten_dict(tree, sep=_SEPARATOR)
        for path in paths:
            if _describe(flat[path]) != saved[path]:
                raise ValueError(f"{path} is not what was saved")
            if name == _STUDENT:
                require_finite(self.directory / str(step), path, flat[path])
        return _rebuild(template, {paths[path]: flat[path] for path in paths})

    def _require_known_format(self, step: int, number: int) -> None:
        if number not in range(1, _FORMAT + 1):
            raise UserError(
                f"{self.directory / str(step)}: a checkpoint of format {number}, which this "
                f"stlm_jax does not know (it reads 1 to {_FORMAT}): update stlm_jax"
            )

    def _require_same_model(self, step: int, saved: dict[str, list], expected: dict) -> None:
        for path in sorted(saved.keys() | expected.keys()):
            ours = theirs = "absent"
            if path in saved:
                shape, dtype, _ = saved[path]
                theirs = f"{dtype}{shape}"
            if path in expected:
                ours = f"{np.dtype(expected[path].dtype).name}{list(expected[path].shape)}"
            if ours != theirs:
                raise UserError(
                    f"{self.directory / str(step)}: checkpoint of another model: {path} is "
                    f"{theirs} in the checkpoint, {ours} in the configured model; use the "
                    "configuration it was trained with, or another --workdir"
                )

    def close(self) -> None:
        """Releases Orbax's resources."""
        if self._manager:
            # Else Orbax's thread that removes leftovers prints a traceback as the process ends.
            if cleanup := getattr(self._manager, "_cleanup_tmp_directory_future", None):
                cleanup.result()
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax's log, which prints whole tracebacks of errors that are handled here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _paths_of_format_1(name: str, saved: dict, expected: dict) -> dict[str, str]:
    """Which leaves of the one item of format 1 an item of today holds, and their paths today."""
    of_student = {path for path in saved if path.split(_SEPARATOR)[0] in _STUDENT_PARTS}
    if name == _STUDENT:
        return {path: path for path in of_student}
    today = {}
    for path in expected:
        collection, *rest = path.split(_SEPARATOR)
        if collection == "hyper":  # hyper/rotation/degrees was hyper/rotation_degrees, …
            today[f"hyper/{'_'.join(rest)}"] = path
            today[f"hyper/{rest[-1]}"] = path  # … and hyper/loss/l1_weight hyper/l1_weight
    return {path: today.get(path, path) for path in saved if path not in of_student}


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    return traverse_util.unflatten_dict(flat, sep=_SEPARATOR)


def _table(flat: dict[str, Any]) -> dict[str, list]:
    return {path: _describe(leaf) for path, leaf in flat.items()}


def _leaves(tree: Any) -> dict[str, Any]:
    """Path → array of a pytree; empty containers and None have no entry."""
    nested = serialization.to_state_dict(tree)
    flat = traverse_util.flatten_dict(nested, sep=_SEPARATOR)
    return {
        k: v if hasattr(v, "shape") else np.asarray(v) for k, v in flat.items() if v is not None
    }


def _rebuild(template: Any, flat: dict[str, np.ndarray]) -> Any:
    nested = serialization.to_state_dict(template)
    slots = traverse_util.flatten_dict(nested, sep=_SEPARATOR, keep_empty_nodes=True)
    filled = {path: flat.get(path, slot) for path, slot in slots.items()}
    return serialization.from_state_dict(
        template, traverse_util.unflatten_dict(filled, sep=_SEPARATOR)
    )


def _describe(array: np.ndarray) -> list:
    """[shape, dtype, CRC-32 of the bytes] as JSON values."""
    array = np.asarray(array)
    content = np.ascontiguousarray(array).view(np.uint8)
    return [list(array.shape), array.dtype.name, zlib.crc32(content.data)]


def _disk_problem(error: BaseException) -> str | None:
    """Says in words what the disk refused; None where the error is of another kind."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk"
    text = str(error)  # the array store reports the same as a plain exception
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return "no space left on the disk"
    denied = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM)
    if denied or "PERMISSION_DENIED" in text or text.startswith("Forbidden"):  # a bucket's
        return "the folder is not writable"
    return None


def _last_good(step: int | None) -> str:
    return "there is no earlier one" if step is None else f"the one of step {step} is intact"
