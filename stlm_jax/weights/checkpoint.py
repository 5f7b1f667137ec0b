"""Checkpoints of a training run; the one module that knows Orbax.

A checkpoint of step k holds what belongs together: the student after k updates, the rest of the
training (optimiser, hyperparameters, key) and the position of the data iterator after k batches.
The student is an item of its own, so that prediction reads a third of the whole and another
optimiser does not make a trained model unreadable.

Each item is the bytes of host arrays, which may go to any devices, end to end by their paths.
Beside them lies a JSON table of every array's shape, dtype and CRC-32. The table is what makes
restoring strict: another model is told from a damaged file, and a flipped bit, which the array
store itself does not notice, is found.
"""

import concurrent.futures
import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.files import disk_problem
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.progress import note
from stlm_jax.weights.checkpoint_formats import come_later, paths_of_format_1
from stlm_jax.weights.leaves import (
    describe,
    flattened,
    host_copies,
    leaves_of,
    nested,
    packed,
    rebuild,
    require_same_model,
    room_for,
    unpacked,
)
from stlm_jax.weights.orbax_here import be_alone, silence
from stlm_jax.weights.shapes import require_finite

_FORMAT = 3  # 2: every array by itself; 1: so, one item `state` for all, whose `hyper` was flat
_STUDENT, _TRAINING, _STATE, _META = "student", "training", "state", "meta"
_DATES = "_CHECKPOINT_METADATA"  # Orbax's file in each
silence()  # for good: saves log in their threads


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
    marks it last, so a process killed at any moment leaves the previous checkpoint as it was. A
    save is written by a thread of this object's own, one at a time; whatever asks for the
    checkpoints on disk waits for it. Of several processes one opens a folder for writing, and
    waits for no other.
    """

    def __init__(self, directory: Path | str, keep: int = 2, read_only: bool = False):
        """Opens `directory`, creating it unless `read_only`; the newest `keep` saves are kept."""
        self.directory = path_of(directory).absolute()
        self._manager: Any = None
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: concurrent.futures.Future[None] | None = None
        if read_only and not self.directory.is_dir():
            return
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            # Orbax's own threads take over only once every array's file is planned and every array
            # copied, which is most of the time that a save of so many small arrays takes.
            enable_async_checkpointing=False,
            read_only=read_only,
            create=not read_only,
        )
        be_alone()
        try:
            self._manager = ocp.CheckpointManager(os.fspath(self.directory), options=options)
        except OSError:
            raise
        except Exception as error:  # it reads when every checkpoint was written
            raise UserError(
                f"{self.directory}: {_DATES} of a checkpoint in it is damaged "
                f"({first_line(error)}): delete that file, nothing else is in it but the date"
            ) from error
        # A reader must not remove what a training is writing; in a bucket there may be no folder.
        if not read_only and self.directory.is_dir():
            for path in self._manager.directory.iterdir():
                if ocp.utils.is_tmp_checkpoint(path):
                    path.rmtree()

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint folder, ascending."""
        self._await_writer()
        return self._complete()

    def _complete(self) -> list[int]:
        return sorted(self._manager.all_steps()) if self._manager else []

    def latest_step(self) -> int | None:
        """The newest of `steps()`, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, student: Any, training: Any, data: Any) -> None:
        """Has checkpoint `step` written; where the disk refuses, earlier ones are untouched.

        On return the arrays may be donated or overwritten. That the checkpoint is on disk, and an
        error if it cannot be, is what `wait` and `close` tell, `check` or the next save.

        Args:
            step: updates done.
            student: {"params": …, "batch_stats": …}.
            training: a pytree of the other arrays.
            data: JSON values.
        """
        self.wait()  # before copying: there is memory for one state, not for two
        items = {_STUDENT: host_copies(student), _TRAINING: host_copies(training)}
        self._writing = self._writer.submit(self._write, step, items, copy.deepcopy(data))

    def _write(self, step: int, items: dict[str, dict[str, np.ndarray]], data: Any) -> None:
        meta = {
            "format": _FORMAT,
            "step": step,
            "data": data,
            "leaves": {
                name: {path: describe(leaf) for path, leaf in flat.items()}
                for name, flat in items.items()
            },
        }
        saved = {name: ocp.args.StandardSave(packed(flat)) for name, flat in items.items()}
        try:
            args = ocp.args.Composite(**saved, meta=ocp.args.JsonSave(meta))
            self._manager.save(step, args=args, force=True)
            self._manager.wait_until_finished()
        except Exception as error:
            reason = disk_problem(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.directory}: checkpoint {step} could not be written: {reason}; "
                f"{_last_good(self._complete())}, so free some space and run the command again"
            ) from error

    def check(self) -> None:
        """Raises what the last save failed of, if it has; waits for nothing."""
        if self._writing and self._writing.done():
            self.wait()

    def failed(self) -> bool:
        """Whether the last save has, which `check` raises; waits for nothing."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def wait(self) -> None:
        """Returns when the last save is on disk, or raises what kept it from there."""
        self._await_writer()
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _await_writer(self) -> None:
        if self._writing:
            concurrent.futures.wait([self._writing])

    def restore(
        self,
        student: Any,
        training: Any = None,
        discard_damaged: bool = False,
        at_most: int | None = None,
    ) -> Restored | None:
        """Reads the newest checkpoint that is whole, or None where there is none at all.

        Args:
            student: a pytree of arrays or `jax.ShapeDtypeStruct` that the result must equal in
                structure, shapes and dtypes.
            training: likewise; None leaves it unread.
            discard_damaged: delete newer checkpoints that were found damaged, so that their steps
                can be saved again.
            at_most: take newer checkpoints than of this step for damaged.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                damaged.append(step)
                continue
            try:
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
        expected = leaves_of(template)
        if meta.get("format", 1) == 1:
            item, saved = _STATE, meta["leaves"]
            paths = paths_of_format_1(name == _STUDENT, saved, expected)
        else:
            item, saved = name, meta["leaves"][name]
            paths = {path: path for path in saved}
        known = {paths[p]: saved[p] for p in paths}
        later = come_later(known, expected)
        known |= {path: describe(value) for path, value in later.items()}
        require_same_model(self.directory / str(step), known, expected)
        flat = self._read(step, item, saved, meta.get("format", 1))
        for path in paths:
            if describe(flat[path]) != saved[path]:
                raise ValueError(f"{path} is not what was saved")
            if name == _STUDENT:
                require_finite(self.directory / str(step), path, flat[path])
        return rebuild(template, later | {paths[path]: flat[path] for path in paths})

    def _read(self, step: int, item: str, saved: dict, number: int) -> dict[str, np.ndarray]:
        # Orbax restores an item only as a whole, into a tree of the very structure.
        if number < 3:
            target = nested({path: np.empty(*what[:2]) for path, what in saved.items()})
        else:
            target = room_for(saved)
        args = {item: ocp.args.StandardRestore(target)}
        tree = self._manager.restore(step, args=ocp.args.Composite(**args))[item]
        return flattened(tree) if number < 3 else unpacked(tree, saved)

    def _require_known_format(self, step: int, number: int) -> None:
        if number not in range(1, _FORMAT + 1):
            raise UserError(
                f"{self.directory / str(step)}: a checkpoint of format {number}, which this "
                f"stlm_jax does not know (it reads 1 to {_FORMAT}): update stlm_jax"
            )

    def close(self) -> None:
        """Waits for the last save and releases Orbax's resources."""
        self._await_writer()  # Ctrl-C ends this, and then nothing is released under the writer
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            if self._manager:
                self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            note(str(failure))  # what ended the run is for the last line


def _last_good(steps: list[int]) -> str:
    return f"the one of step {steps[-1]} is intact" if steps else "there is no earlier one"
