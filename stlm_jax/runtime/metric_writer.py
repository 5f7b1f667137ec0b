"""Training metrics on disk: one JSON object a line, and TensorBoard events where possible."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stlm_jax.runtime.files import named, parsed_json, write_atomically
from stlm_jax.runtime.paths import Staged
from stlm_jax.runtime.progress import note

_INTERVAL = 60.0  # seconds between two copies to a bucket


class MetricWriter:
    """Writes a file of JSON lines and TensorBoard events beside it.

    A bucket, which nothing can be appended to, gets them as wholes, once a minute; lines by `send`.
    Lines of steps after `start` are dropped first: a resumed run repeats those steps, and every
    step must appear once.
    """

    def __init__(self, path: Path, start: int = 0):
        """Opens the file `path`; `start` is the step that training resumes from."""
        lines = _lines_until(path, start)
        self._path = path
        self._name, self._staged, self._sent = path.name, Staged(path.parent), time.monotonic()
        local = self._staged.path / path.name
        write_atomically(local, "".join(f"{line}\n" for line in lines))
        self._file = local.open("a", encoding="utf-8")
        purged = {"purge_step": start + 1} if start else {}
        self._events = event_writer(self._staged.path, **purged)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line `{"step": step, name: value, …}` and the same events."""
        with named(self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._staged.is_copied and time.monotonic() - self._sent > _INTERVAL:
            if self._events:
                self._events.flush()
            self._staged.send()
            self._sent = time.monotonic()

    def send(self) -> None:
        """Has a bucket hold all lines; events, which may be large, wait for their time."""
        self._staged.send(self._name)

    @property
    def takes_images(self) -> bool:
        """Whether there are TensorBoard events for images to go to."""
        return self._events is not None

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images, (H, W, 3) uint8 by name, as events; nothing where there are none."""
        if self._events:
            for name, pixels in images.items():
                self._events.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes the files."""
        with named(self._path):  # what was not written yet is tried again
            self._file.close()
            if self._events:
                self._events.close()
            self._staged.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SilentWriter(MetricWriter):
    """Writes nothing: that of the processes of a run that are not the first."""

    takes_images = False

    def __init__(self, path: Path, start: int = 0):
        """Leaves the file to the first process."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Does nothing."""

    def send(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if parsed_json(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # a line cut off when the process was killed
            continue
    return kept


def event_writer(directory: Path, **options: Any) -> Any:
    """A `tensorboardX.SummaryWriter` of `directory`; None, and a note, without tensorboardX."""
    try:
        with _without("torch"):  # which it imports for the name of a type, and takes a second for
            from tensorboardX import SummaryWriter
    except ImportError:
        note("no TensorBoard events: tensorboardX is missing; pip install 'stlm_jax[report]'")
        return None
    return SummaryWriter(str(directory), **options)


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """While this context is open, a module that is not imported yet counts as not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
