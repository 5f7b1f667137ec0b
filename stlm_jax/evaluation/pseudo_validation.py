"""How well a model finds defects that were drawn into good images which it has not seen.

A measure that settings may be chosen by: it looks at no image that models are tested on. The good
images are those of `config.calibration.held_out`, or the data set's own for validation, and
`pseudo_defects.py` draws into each of them. What it draws depends on the image's name and the
number of the variant alone, so that any two models are measured on the same images.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from stlm_jax.data import dataset
from stlm_jax.data.held_out import HELD_OUT
from stlm_jax.data.reader import View, readable
from stlm_jax.data.records import Record
from stlm_jax.evaluation.calibrate import Predict
from stlm_jax.evaluation.pseudo_defects import KINDS, add_defect
from stlm_jax.metrics import Accumulator
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import track
from stlm_jax.weights.description import VALIDATION

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
VARIANTS = 4  # defects drawn into each good image, one in each of its copies
GOOD = "good"
_AHEAD = 4  # images with their variants that wait to be predicted


class Example(NamedTuple):
    """An image to measure on.

    Attributes:
        name: of the good image.
        view: what the network sees.
        mask: (h, w) bool, of the image as it lies in the square, without padding.
        kind: of the defect; `good` where there is none.
    """

    name: str
    view: View
    mask: np.ndarray
    kind: str


def good_images(config: ml_collections.ConfigDict, category: str) -> list[Record]:
    """The good images of a category that training does not see and tests do not show."""
    records = dataset.scan(config, category).records
    for split in (VALIDATION, HELD_OUT):
        found = [record for record in records if record.split == split and not record.label]
        if found:
            return found
    raise UserError(
        f"{category}: no good image is kept from training to measure on: set "
        "--config.calibration.held_out=0.1 or more"
    )


def examples_of(config: ml_collections.ConfigDict, record: Record) -> list[Example]:
    """A good image as it is and with `VARIANTS` defects; `config` as `depth.resolved` gives it."""
    view = dataset.image_reader(config).view(record.image)
    content, name = view.box.of(view.pixels), record.image.stem
    first = int.from_bytes(_digest(f"{record.category}/{name}")[:4], "big")
    found = [Example(name, view, np.zeros(content.shape[:2], bool), GOOD)]
    for variant in range(VARIANTS):
        digest = _digest(f"{record.category}/{name}/{variant}")
        rng = np.random.default_rng(list(digest))
        # The kinds in turn, beginning anywhere: each has its share of the images.
        defect = add_defect(content, KINDS[(first + variant) % len(KINDS)], rng)
        pixels = view.pixels.copy()
        view.box.of(pixels)[...] = defect.pixels
        found.append(Example(name, View(pixels, view.box), defect.mask, defect.kind))
    return found


def examples(config: ml_collections.ConfigDict, records: Sequence[Record]) -> Iterator[Example]:
    """The examples of good images, in order; read and drawn in threads."""
    found = readable(
        records, lambda record: examples_of(config, record), dataset.skips(config), _AHEAD
    )
    return itertools.chain.from_iterable(each for _, each in found)


def measure(
    config: ml_collections.ConfigDict, predict: Predict, category: str, label: str
) -> dict[str, Any]:
    """Measures the category's model on its examples; a MetricError names a map that is not finite.

    Args:
        config: of the category's run, as `depth.resolved` gives it.
        predict: the category's model.
        category: its name.
        label: of the progress line.

    Returns:
        `metrics`, fractions by name; `by_kind`, the same of each kind of defect against all good
        images; `good` and `anomalous`, how many images there were of each.
    """
    records = good_images(config, category)
    waiting: deque[Example] = deque()

    def views() -> Iterator[View]:
        for example in examples(config, records):
            waiting.append(example)
            yield example.view

    accumulator, counts = Accumulator(METRICS, bootstrap=0), {True: 0, False: 0}
    for maps in track(predict(views()), label, len(records) * (1 + VARIANTS)):
        example = waiting.popleft()
        is_anomalous = example.kind != GOOD
        accumulator.add(maps.map, example.mask, float(maps.score), is_anomalous, example.kind)
        counts[is_anomalous] += 1
    if not counts[False]:
        raise UserError(f"{category}: none of {len(records)} good images to measure on can be read")
    result = accumulator.result()
    return {
        "metrics": result.values,
        "by_kind": result.by_defect,
        "good": counts[False],
        "anomalous": counts[True],
    }


def _digest(text: str) -> bytes:  # of no generator, whose numbers a new version may change
    return hashlib.sha256(text.encode()).digest()
