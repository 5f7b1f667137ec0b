"""Ground truth of a test image at the resolution that metrics are taken at."""

from typing import NamedTuple

import numpy as np

from stlm_jax.data.images import read_mask, read_mask_file, resize_mask
from stlm_jax.data.masks import AUTO, Mask
from stlm_jax.data.records import Record, Saturation

Shape = tuple[int, int]  # height and width
IMAGE_SIZE, NATIVE = "image_size", "native"


class Truth(NamedTuple):
    """What is known of an image's pixels.

    Attributes:
        mask: (h, w) bool, true on defects; None where it is not known.
        regions: the defects one by one, each (h, w) bool, with the number of pixels from which it
            counts as found; None where defects are the regions that lie apart in `mask`.
    """

    mask: np.ndarray | None
    regions: list[tuple[np.ndarray, float]] | None = None


def metric_shape(resolution: str, image_size: int, own: Shape) -> Shape:
    """Height and width at which the metrics of an image are taken.

    `resolution` is `image_size`, the side of the square that the network sees; `native`, the
    height and width of the image's `own` file; or a number of pixels.
    """
    if resolution == NATIVE:
        return own
    side = image_size if resolution == IMAGE_SIZE else int(resolution)
    return side, side


def read_truth(record: Record, shape: Shape, rule: str = AUTO) -> Truth:
    """The ground truth of `record` in `shape`; a pixel counts where half of what it covers does.

    `rule` is `config.data.mask`.
    """
    if not record.has_truth:
        return Truth(None)
    if not record.masks:
        return Truth(np.zeros(shape, bool))
    mask = resize_mask(read_mask(record.masks, None, rule, record.image) > 0, shape)
    if not record.saturations:
        return Truth(mask)
    saturations = {saturation.value: saturation for saturation in record.saturations}
    masks = (read_mask_file(file, rule, record.image)[0] for file in record.masks)
    regions = (_region(mask, shape, saturations) for mask in masks)
    return Truth(mask, [region for region in regions if region[0].any()])


def _region(
    mask: Mask, shape: Shape, saturations: dict[int, Saturation]
) -> tuple[np.ndarray, float]:
    saturation = saturations.get(int(mask.values.max()))
    share = saturation.share(int(mask.marked.sum())) if saturation else 1.0
    region = resize_mask(mask.marked, shape)
    return region, share * float(region.sum())
