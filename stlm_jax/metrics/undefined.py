"""Where a metric has no value, and the reason that is given for it."""

import numpy as np

from stlm_jax.metrics.errors import Undefined


def unless_images(labels: np.ndarray) -> None:
    """Images are ranked: some are good, some defective."""
    if not labels.any():
        raise Undefined("no image is defective")
    if labels.all():
        raise Undefined("no image is good")


def unless_pixels(defective: bool, normal: bool) -> None:
    """Pixels are ranked: the masks hold both kinds."""
    if not defective:
        raise Undefined("the masks hold no defective pixel")
    if not normal:
        raise Undefined("the masks hold no normal pixel")


def unless_shared(defective: bool, good: bool) -> None:
    """Defective pixels are ranked against good images: there are both."""
    if not defective:
        raise Undefined("the masks hold no defective pixel")
    if not good:
        raise Undefined("no image is good, so there is no false positive rate of good images")


def unless_regions(without: int, pixels: bool) -> None:
    """Regions saturate: all defective images have them."""
    if without:
        raise Undefined(f"{without} defective images came without regions and their saturation")
    if not pixels:
        raise Undefined("the masks hold no region")
