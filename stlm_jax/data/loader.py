"""Training batches: an endless, seeded, resumable stream over images, prefetched by Grain."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import grain
import numpy as np

from stlm_jax.runtime.errors import UserError

_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


T = TypeVar("T")


class Companion(Protocol):
    """What belongs to a batch besides its images.

    Attributes:
        order: JSON values that tell its stream from another's; part of the loader's state.
    """

    order: dict[str, Any]

    def of(self, number: int, index: np.ndarray, rows: slice) -> dict[str, Any]:
        """Further parts of batch `number`, from 0, which has the images of `index`, (N,) int64.

        What it gives of samples is of the batch's `rows` only, those of this process.
        """
        ...


def shard(items: Sequence[T], process: int, processes: int) -> Sequence[T]:
    """The part of `items`, in the same order in every process, that is a process's own."""
    return items[process::processes]


class _Numbered:
    """The images of a source, each with its number in it."""

    def __init__(self, images: Any):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._images[index], "index": np.int64(index)}


class _Numbers:
    """The numbers of so many images, which are read later."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": np.int64(index)}


class TrainLoader(Iterator[dict[str, Any]]):
    """Iterates over batches without end.

    A batch has `image`, (batch, H, W, 3) uint8, and `index`, (batch,) int64, their numbers among
    the images.

    Every epoch is shuffled anew and its last partial batch dropped, as in the published code. Of
    several processes each makes its rows of every batch, in the order of the processes: together
    they make the batches of one process, and a place in the stream is the same for any number.

    Attributes:
        steps_per_epoch: batches in one epoch.
    """

    def __init__(
        self,
        images: grain.sources.RandomAccessDataSource[np.ndarray],
        batch_size: int,
        seed: int,
        processes: int = 1,
        companion: Companion | None = None,
        process: int = 0,
    ):
        """A stream over images, each (H, W, 3) uint8.

        Args:
            images: an array, or a `cache.ImageCache`.
            batch_size: images in a batch of all processes.
            seed: of the order, 0 to 2**32 - 1.
            processes: how many there are.
            companion: what else belongs to a batch; got ahead of time, in a thread.
            process: which of them this is; it reads its rows only.
        """
        if batch_size < 1:
            raise UserError(f"train.batch_size: {batch_size} is not positive: set it to 1 or more")
        if batch_size % processes:
            raise UserError(
                f"train.batch_size: {batch_size} cannot be divided among {processes} processes"
            )
        if not len(images):
            raise UserError("there is no training image: check data.root and data.categories")
        if len(images) < batch_size:
            raise UserError(
                f"train.batch_size: {batch_size} exceeds the {len(images)} training images: set it "
                f"to {len(images)} or less"
            )
        share = batch_size // processes
        rows = slice(process * share, (process + 1) * share)
        self.steps_per_epoch = len(images) // batch_size
        self._order = {"seed": int(seed), "batch_size": int(batch_size), "images": len(images)}
        self._order |= companion.order if companion else {}

        def complete(number: int, batch: dict[str, Any]) -> dict[str, Any]:
            index = batch["index"]
            more = companion.of(number, index, rows) if companion else {}
            own = batch["image"] if processes == 1 else np.stack([images[i] for i in index[rows]])
            return {"image": own, "index": index[rows], **more}

        source = _Numbered(images) if processes == 1 else _Numbers(len(images))
        epoch = grain.MapDataset.source(source).seed(seed).shuffle()
        batches = epoch.batch(batch_size, drop_remainder=True).repeat()
        batches = batches.map_with_index(complete)
        self._iterator = iter(batches.to_iter_dataset(_READ_OPTIONS))

    def __next__(self) -> dict[str, Any]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The place in the stream, JSON-able: batches prefetched but not yet taken don't count."""
        return {**self._order, "grain": self._iterator.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on at a place that `get_state` of a stream of the same order gave."""
        order = {key: value for key, value in state.items() if key != "grain"}
        if order != self._order:
            raise UserError(
                f"the checkpoint's data order {order} does not fit {self._order}: "
                "restore seed, train.batch_size and the images, or start in a new workdir"
            )
        self._iterator.set_state(dict(state["grain"]))

    def close(self) -> None:
        """Stops the prefetching threads; the loader cannot be used afterwards."""
        self._iterator.close()
