"""The way of a category's test images through reading, the model and the metrics."""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import ml_collections
import numpy as np
from PIL import Image

from stlm_jax.data import dataset
from stlm_jax.data.images import open_rgb
from stlm_jax.data.loader import shard
from stlm_jax.data.reader import View, readable
from stlm_jax.data.records import Record
from stlm_jax.data.truth import metric_shape, read_truth
from stlm_jax.evaluation.calibrate import Predict
from stlm_jax.evaluation.measurements import Measurements, TestImage
from stlm_jax.runtime.progress import track
from stlm_jax.weights.description import Calibration

_THREADS = 2  # that fold images in: at 1024 pixels a single one is slower than a GPU
_WAITING = 8  # images, full-size, that may wait for them: it bounds memory


def measure(
    config: ml_collections.ConfigDict,
    predict: Predict,
    records: Sequence[Record],
    label: str,
    calibration: Calibration | None = None,
    panels: Sequence[int] = (),
) -> Measurements:
    """Measures this process's share of a split by `predict`, the category's model.

    The device computes a batch while threads of the host fold in the one before and read the ones
    after. `records` are the split, the same in every process, `label` is that of the progress
    line, and `panels` are the places in the split whose maps are kept.
    """
    own = shard(list(enumerate(records)), jax.process_index(), jax.process_count())
    waiting: deque[TestImage] = deque()

    def views() -> Iterator[View]:
        reads = readable(
            own, lambda numbered: read_test_image(config, *numbered), dataset.skips(config)
        )
        for _, image in reads:
            waiting.append(image)
            yield image.view

    parts = [Measurements(config, calibration, panels) for _ in range(_THREADS)]
    pending: deque[Future[None]] = deque()
    with contextlib.ExitStack() as stack:
        # A thread for each part: sums are taken in an order that depends on nothing but the
        # images' order, so that the numbers are repeatable.
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in parts]
        try:
            for number, maps in enumerate(track(predict(views()), label, len(own))):
                part, pool = parts[number % _THREADS], pools[number % _THREADS]
                pending.append(pool.submit(part.add, waiting.popleft(), maps))
                while len(pending) > _WAITING:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        except BaseException:
            # Leaving the pools' contexts would first fold in all that waits.
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            raise
    first, *others = parts
    for other in others:
        first.merge(other)
    return first


def read_test_image(config: ml_collections.ConfigDict, place: int, record: Record) -> TestImage:
    """An image of a split with its ground truth; `place` is its number there."""
    image = open_rgb(record.image, config.data.depth)
    shape = metric_shape(config.evaluate.resolution, config.image_size, (image.height, image.width))
    view = dataset.image_reader(config).view_of(image)
    truth = read_truth(record, shape, config.data.mask)
    image.thumbnail((config.report.thumbnail,) * 2, Image.Resampling.BILINEAR)
    return TestImage(place, record, view, np.array(image), truth, shape)
