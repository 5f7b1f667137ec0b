"""The way of a category's test images through reading, the model and the metrics."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import ml_collections
import numpy as np
from PIL import Image

from stlm_jax import dataset
from stlm_jax.calibration import Calibration
from stlm_jax.data.images import open_rgb
from stlm_jax.data.pipeline import shard
from stlm_jax.data.reading import View, readable
from stlm_jax.data.records import Record
from stlm_jax.data.truth import metric_shape, read_truth
from stlm_jax.measured import Measured, Seen
from stlm_jax.predictor import Found, Predictor
from stlm_jax.progress import ProgressLine

Numbered = tuple[int, Record]  # a record and its place in the split
_THREADS = 2  # that fold images in: at 1024 pixels one is slower than a GPU
_WAITING = 4  # images a thread, full-size, that may wait for it


def measure(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    category: str,
    records: Sequence[Record],
    calibration: Calibration | None,
    panels: Sequence[int] = (),
) -> Measured:
    """Measure this process's share of a split with the model that `predictor` has loaded.

    The device computes a batch while threads of the host fold in the one before and read the ones
    after. Which thread folds an image in depends on its place only, so the numbers are repeatable.

    Args:
        config: of the run.
        predictor: with the category's weights loaded.
        category: its name.
        records: the split, the same in every process.
        calibration: the thresholds, if there are any.
        panels: places in the split whose maps are kept for panels.

    Raises:
        ImageError: an image or mask cannot be read, unless `config.data.on_error` is `skip`.
        MetricError: a map is not finite.
    """
    numbered: list[Numbered] = list(enumerate(records))
    own = shard(numbered, jax.process_index(), jax.process_count())
    waiting: deque[Seen] = deque()

    def views() -> Iterator[View]:
        for _, seen in readable(own, lambda one: read(config, one), dataset.skips(config)):
            waiting.append(seen)
            yield seen.view

    progress = ProgressLine(f"evaluate {category}", len(own), unit="image")
    threads = [_Thread(Measured(config, calibration, panels)) for _ in range(_THREADS)]
    try:
        for done, found in enumerate(predictor(views()), 1):
            threads[done % _THREADS].add(waiting.popleft(), found)
            progress.update(done)
        measured, *others = [thread.finish() for thread in threads]
    finally:
        for thread in threads:
            thread.stop()
        progress.close()
    for other in others:
        measured.merge(other)
    return measured


def read(config: ml_collections.ConfigDict, numbered: Numbered) -> Seen:
    """Read an image and its ground truth.

    Raises:
        ImageError: one of them cannot be read.
    """
    place, record = numbered
    image = open_rgb(record.image)
    shape = metric_shape(config.evaluate.resolution, config.image_size, (image.height, image.width))
    view = dataset.reading(config).view_of(image)
    truth = read_truth(record, shape)
    image.thumbnail((config.report.thumbnail,) * 2, Image.Resampling.BILINEAR)
    return Seen(place, record, view, np.array(image), truth, shape)


class _Thread:
    """A thread that adds images to a `Measured` of its own, in order."""

    def __init__(self, measured: Measured):
        self._measured, self._pool = measured, ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def add(self, seen: Seen, found: Found) -> None:
        """Add an image soon; waits where many are to be added, raises what went wrong earlier."""
        self._pending.append(self._pool.submit(self._measured.add, seen, found))
        while len(self._pending) > _WAITING:
            self._pending.popleft().result()

    def finish(self) -> Measured:
        """The images, once they are all added; raises what went wrong."""
        while self._pending:
            self._pending.popleft().result()
        return self._measured

    def stop(self) -> None:
        """Leave the rest."""
        self._pool.shutdown(cancel_futures=True)
