"""The way of a category's test images through reading, the model and the metrics."""

import os
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
from stlm_jax.evaluation.measurements import Looked, Measurements, TestImage
from stlm_jax.runtime.progress import track
from stlm_jax.weights.description import Calibration

# That look at images: at 1024 pixels a single one is slower than a GPU. Each has a map's pixels
# several times over in memory.
_THREADS = min(4, os.cpu_count() or 1)
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

    The device computes a batch while threads of the host look at the one before and read the ones
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

    measured = Measurements(config, calibration, panels)
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS) as looking, ThreadPoolExecutor(1) as folding:
        try:
            for maps in track(predict(views()), label, len(own)):
                looked = looking.submit(measured.look, waiting.popleft(), maps)
                # In the images' order by a thread of its own: sums then are the same to the last
                # bit however many threads look.
                pending.append(folding.submit(_fold, measured, looked))
                while len(pending) > _WAITING:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        except BaseException:
            # Leaving the pools' contexts would first look at all that waits.
            for pool in (looking, folding):
                pool.shutdown(wait=False, cancel_futures=True)
            raise
    return measured


def _fold(measured: Measurements, looked: Future[Looked]) -> None:
    measured.fold(looked.result())


def read_test_image(config: ml_collections.ConfigDict, place: int, record: Record) -> TestImage:
    """An image of a split with its ground truth; `place` is its number there."""
    image = open_rgb(record.image, config.data.depth)
    shape = metric_shape(config.evaluate.resolution, config.image_size, (image.height, image.width))
    view = dataset.image_reader(config).view_of(image)
    truth = read_truth(record, shape, config.data.mask)
    image.thumbnail((config.report.thumbnail,) * 2, Image.Resampling.BILINEAR)
    return TestImage(place, record, view, np.array(image), truth, shape)
