"""Training batches: an endless, seeded, resumable stream over images held in memory."""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from stlm_jax.errors import UserError

_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


class _Images:
    """Grain's random-access source over an array of images."""

    def __init__(self, images: np.ndarray):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self._images[index]}

    def __repr__(self) -> str:
        return f"_Images({self._images.shape})"


class TrainLoader(Iterator[dict[str, np.ndarray]]):
    """Iterates over batches {'image': (batch_size, H, W, 3) uint8} without end.

    Every epoch is shuffled anew and its last partial batch dropped, as in the published code.

    Attributes:
        steps_per_epoch: batches in one epoch.
    """

    def __init__(self, images: np.ndarray, batch_size: int, seed: int, start: int = 0):
        """Set up the stream.

        Args:
            images: (N, H, W, 3) uint8.
            batch_size: images in a batch.
            seed: of the order, 0 to 2**32 - 1.
            start: number of batches to skip.

        Raises:
            UserError: when `batch_size` is not positive or exceeds N.
        """
        if batch_size < 1:
            raise UserError(f"train.batch_size: {batch_size} is not positive: set it to 1 or more")
        if len(images) < batch_size:
            raise UserError(
                f"train.batch_size: {batch_size} exceeds the {len(images)} training images: "
                f"set it to {len(images)} or less"
                if len(images)
                else "there is no training image: check data.root and data.categories"
            )
        self.steps_per_epoch = len(images) // batch_size
        self._order = {"seed": int(seed), "batch_size": int(batch_size), "images": len(images)}
        epoch = grain.MapDataset.source(_Images(images)).seed(seed).shuffle()
        batches = epoch.batch(batch_size, drop_remainder=True).repeat()
        self._iterator = iter(batches.to_iter_dataset(_READ_OPTIONS))
        if start:
            self._iterator.set_state({"next_index": int(start)})

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The place in the stream, JSON-able: batches prefetched but not yet taken don't count."""
        return {**self._order, "grain": self._iterator.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue at a place that `get_state` gave.

        Raises:
            UserError: when it belongs to a stream of another seed, batch size, or image count.
        """
        order = {key: state.get(key) for key in self._order}
        if order != self._order:
            raise UserError(
                f"the checkpoint's data order {order} does not fit {self._order}: "
                "restore seed, train.batch_size and the images, or start in a new workdir"
            )
        self._iterator.set_state(dict(state["grain"]))

    def close(self) -> None:
        """Stop the prefetching threads; the loader cannot be used afterwards."""
        self._iterator.close()
