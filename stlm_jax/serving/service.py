"""What a request goes through: a place in the house, a bounded time, a thread, the model."""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from stlm_jax.data.memory_file import MemoryFile
from stlm_jax.data.reader import ImageReader
from stlm_jax.inference.predict_views import require_finite_maps
from stlm_jax.inference.warm_up import warm_up
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable
from stlm_jax.serving import answers, uploads
from stlm_jax.serving.answers import Seen
from stlm_jax.serving.batching import Batcher, Model
from stlm_jax.serving.errors import Refused, not_ready, too_many
from stlm_jax.serving.metrics import Metrics
from stlm_jax.serving.options import Options

T = TypeVar("T")
_THREADS = max(2, os.cpu_count() or 1)  # that decode and encode


class Service:
    """The models, and all that requests share.

    Attributes:
        options: how to serve.
        models: by name, once they are loaded.
        ready: whether all are compiled.
        failure: what ended the models' thread, if anything did.
    """

    def __init__(self, options: Options, load: Callable[[str], Model]):
        """`load` makes a model of what `options.models` holds."""
        self.options, self._load = options, load
        self.models: dict[str, Model] = {}
        self.ready = False
        self.failure: BaseException | None = None
        self._taken = 0  # places
        self.metrics = Metrics(lambda: len(self.batcher), lambda: self._taken)
        self.batcher = Batcher(options.max_batch, options.max_wait_ms / 1000, self.metrics.called)
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS, "images")
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)
        self._on_failure: Callable[[], None] = lambda: None

    def start(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """Starts the models' thread; `on_failure` is called in it where it cannot go on."""
        self._on_failure = on_failure
        self._thread.start()

    def stop(self) -> bool:
        """Ends it once nothing waits; whether it did end, which a compilation may hold up."""
        self.batcher.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self.ready:
            self._thread.join(self.options.timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            for name, path in self.options.models.items():
                begin = time.perf_counter()
                model = self._load(path)
                note(f"{name}: {_told(model)} loaded in {time.perf_counter() - begin:.1f} s")
                begin = time.perf_counter()
                counts = [1 << n for n in range((self.options.max_batch - 1).bit_length() + 1)]
                warm_up(name, model.views, model.description.image_size, counts)
                seconds = time.perf_counter() - begin
                sizes = ", ".join(map(str, counts))
                note(f"{name}: compiled for {sizes} images a call in {seconds:.1f} s")
                self.models[name] = model
            self.ready = True
            note("ready")
            self.batcher.run(self.models)
        except BaseException as error:
            self.failure, self.ready = error, False
            self._on_failure()

    def model(self, name: str | None) -> tuple[str, Model]:
        """The model of a name, or the first."""
        known = self.options.models
        if name is not None and name not in known:
            raise Refused(
                404, f"no model is called {printable(name)[:80]!r}: there is {', '.join(known)}"
            )
        if not self.ready:
            raise not_ready("the models are being loaded")
        name = next(iter(known)) if name is None else name
        return name, self.models[name]

    @contextlib.contextmanager
    def places(self, most: int = 1) -> Iterator[int]:
        """Takes up to `most` of the house's places for images; refuses where none is free."""
        count = min(most, self.options.queue - self._taken)
        if count < 1:
            raise too_many("too many requests at once: try again later")
        self._taken += count
        try:
            yield count
        finally:
            self._taken -= count

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Refuses what takes longer than the options allow; what is under way is dropped."""
        try:
            async with asyncio.timeout(self.options.timeout_s):
                yield
        except TimeoutError:
            raise Refused(
                504, f"no answer within {self.options.timeout_s:g} s: try again later"
            ) from None

    async def look(self, name: str, model: Model, file: MemoryFile) -> Seen:
        """Has a model look at an image."""
        known = model.description
        reader = ImageReader(known.image_size, known.geometry, depth=known.depth)
        view, shape = await self.in_thread(uploads.view, file, self.options.max_pixels, reader)
        try:
            maps = await asyncio.wrap_future(self.batcher.put(name, view))
            require_finite_maps(maps._asdict(), str(file))
        except UserError as error:
            raise Refused(500, str(error)) from None  # never taken for good
        return Seen(file, shape, maps)

    async def result(self, name: str, model: Model, seen: Seen) -> answers.FullResult:
        """The numbers of what was seen."""
        found = await self.in_thread(answers.result, name, model.description, seen)
        self.metrics.verdicts.labels(name, found.verdict or "not judged").inc()
        return found

    async def in_thread(self, function: Callable[..., T], *arguments) -> T:
        """Calls a function where it does not hold up other requests."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _told(model: Model) -> str:
    known = model.description
    threshold = f"threshold {known.calibration.threshold:.4g}" if known.calibration else (
        "no threshold, so that it judges nothing"
    )  # fmt: skip
    return f"{known.category or 'a model'}, {known.image_size} px, {threshold},"
