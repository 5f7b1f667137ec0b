"""Requests that share a call of the model: one thread, which waits a bounded time for more."""

import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from stlm_jax.data.reader import View
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.weights.description import Description


class Model(Protocol):
    """What is served: `stlm_jax.inference.Detector`, or what looks like one."""

    description: Description

    def views(self, views: Iterable[View]) -> Iterator[ImageMaps]:
        """Maps and scores of images in squares, in order; as many shapes as powers of two."""


class _Item(NamedTuple):
    view: View
    result: concurrent.futures.Future[ImageMaps]
    arrived: float  # seconds of time.monotonic


class Batcher:
    """Images that wait for a model.

    `put` is called from any thread, `run` is the model's thread. A result that was cancelled
    before its turn is dropped.
    """

    def __init__(
        self,
        max_batch: int,
        max_wait: float,
        observe: Callable[[str, int, float], None] = lambda name, images, seconds: None,
    ):
        """`max_wait` in seconds; `observe` is told of each call: model, images, seconds."""
        self._max_batch, self._max_wait, self._observe = max_batch, max_wait, observe
        self._waiting: dict[str, collections.deque[_Item]] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def __len__(self) -> int:
        """How many images wait."""
        return sum(map(len, list(self._waiting.values())))

    def put(self, name: str, view: View) -> concurrent.futures.Future[ImageMaps]:
        """Has the model called `name` look at an image."""
        result: concurrent.futures.Future[ImageMaps] = concurrent.futures.Future()
        with self._changed:
            if self._stopped:
                raise RuntimeError("stopped")
            item = _Item(view, result, time.monotonic())
            self._waiting.setdefault(name, collections.deque()).append(item)
            self._changed.notify()
        return result

    def stop(self) -> None:
        """Has `run` end when nothing waits any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self, models: dict[str, Model]) -> None:
        """Calls models until stopped."""
        while taken := self._take():
            name, items = taken
            items = [item for item in items if item.result.set_running_or_notify_cancel()]
            if items:
                begin = time.perf_counter()
                _answer(models[name], items)
                self._observe(name, len(items), time.perf_counter() - begin)

    def _take(self) -> tuple[str, list[_Item]] | None:
        """The next images of one model, once they are as many as fit or one has waited enough."""
        with self._changed:
            while True:
                queues = {name: queue for name, queue in self._waiting.items() if queue}
                if not queues and self._stopped:
                    return None
                now = time.monotonic()
                due = {
                    name: now if len(queue) >= self._max_batch or self._stopped
                    else queue[0].arrived + self._max_wait
                    for name, queue in queues.items()
                }  # fmt: skip
                ready = [name for name, when in due.items() if when <= now]
                if ready:
                    name = min(ready, key=lambda name: queues[name][0].arrived)
                    queue = queues[name]
                    count = min(len(queue), self._max_batch)
                    return name, [queue.popleft() for _ in range(count)]
                self._changed.wait(min(due.values()) - now if due else None)


def _answer(model: Model, items: list[_Item]) -> None:
    """Calls the model; where that fails, with each image alone, so that one harms no other."""
    try:
        found = list(model.views([item.view for item in items]))
        if len(found) != len(items):
            raise RuntimeError(f"{len(found)} results of {len(items)} images")
    except Exception as error:
        if len(items) == 1:
            items[0].result.set_exception(error)
        else:
            for item in items:
                _answer(model, [item])
        return
    for item, maps in zip(items, found, strict=True):
        item.result.set_result(maps)
