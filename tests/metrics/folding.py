"""Images given to an accumulator, as the tests do it."""

import numpy as np

from stlm_jax.metrics import Accumulator


def folded(maps, masks, names, scores=None, labels=None, regions=None, defects=None, **options):
    """The accumulator of a category; by default no intervals."""
    accumulator = Accumulator(names, **({"bootstrap": 0} | options))
    for index, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        accumulator.add(
            np.asarray(values, np.float32),
            mask,
            0.0 if scores is None else scores[index],
            bool(np.any(mask)) if labels is None else labels[index],
            "defect" if defects is None else defects[index],
            None if regions is None else regions[index],
        )
    return accumulator
