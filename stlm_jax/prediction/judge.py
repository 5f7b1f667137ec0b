"""The way of images through reading, model, regions and pictures to rows, in bounded memory.

Threads read the next images while the model looks at some, and others finish the ones before.
"""

import contextlib
import functools
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stlm_jax.data.images import ImageError, open_rgb, resize_map
from stlm_jax.data.reader import ImageReader, View
from stlm_jax.data.threads import in_threads
from stlm_jax.drawing.colours import Scale
from stlm_jax.inference.predict_views import ImageMaps, NotFinite, require_finite_maps
from stlm_jax.inference.regions import regions_of
from stlm_jax.prediction.naming import folder_of
from stlm_jax.prediction.options import NONE, Options
from stlm_jax.prediction.pictures import clear, write_map, write_overlay
from stlm_jax.prediction.seen import BEGUN, Key, Seen
from stlm_jax.prediction.sources import Source
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.text import as_utf8

if TYPE_CHECKING:
    from stlm_jax.inference.detector import Detector

GOOD, DEFECTIVE = "good", "defective"
_THREADS = 2  # that finish images; at 1024 pixels one is slower than a GPU
_WAITING = 4  # images, full-size, that may wait for them

Row = dict[str, Any]


class Begun(NamedTuple):
    """An image to be judged.

    Attributes:
        source: its file.
        key: of it as it lay there.
        folder: of its pictures, relative to the output.
    """

    source: Source
    key: Key
    folder: str


class Done(NamedTuple):
    """An image that was judged, or cannot be.

    Attributes:
        image: which.
        row: of `predictions.jsonl`; it has `error` in the place of a score if there is none.
        is_read: whether the file could be read.
    """

    image: Begun
    row: Row
    is_read: bool


class _Read(NamedTuple):
    image: Begun
    view: View | None  # None of what cannot be read
    shape: tuple[int, int]
    error: str


class Judge:
    """A model with what is asked of it."""

    def __init__(self, detector: "Detector", options: Options, batch: int):
        """`batch` images go through `detector` in a call."""
        known, described = detector.calibration, detector.description
        self._detector, self._options, self._batch = detector, options, batch
        self._known, self._depth = known, described.depth
        self._scale = Scale.of(known.pixel_threshold if known else None)
        self._reader = ImageReader(described.image_size, described.geometry, depth=described.depth)

    def rows(self, images: Iterable[Begun], ahead: int) -> Generator[Done, None, None]:
        """The row of every image, in order, once its pictures are whole on disk.

        That of one that cannot be judged has `error`. At most `ahead` images that were read wait
        for the model, and a few that it has seen for the threads that finish them.
        """
        waiting: deque[Future[Done]] = deque()
        first = True
        with (
            contextlib.closing(in_threads(self._read, images, ahead)) as reads,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            try:
                while some := list(itertools.islice(reads, self._batch)):
                    for finish in self._looked_at(some):
                        waiting.append(pool.submit(finish))
                        if len(waiting) > _WAITING:
                            yield waiting.popleft().result()
                    # The first rows are waited for: someone looks whether all goes well.
                    while waiting and (first or waiting[0].done()):
                        yield waiting.popleft().result()
                    first = False
                while waiting:
                    yield waiting.popleft().result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read(self, image: Begun) -> _Read:
        try:
            pixels = open_rgb(image.source.path, self._depth)
            view = self._reader.view_of(pixels)
        except ImageError as error:
            return _Read(image, None, (0, 0), str(error))
        return _Read(image, view, (pixels.height, pixels.width), "")

    def _looked_at(self, reads: Sequence[_Read]) -> Iterator[Callable[[], Done]]:
        """What a thread is to do for every image: the model has seen those that could be read."""
        views = [read.view for read in reads if read.view is not None]
        start = time.perf_counter()
        maps = iter(self._maps(views))
        each = (time.perf_counter() - start) * 1000 / max(1, len(views))
        for read in reads:
            its = next(maps) if read.view is not None else None
            yield functools.partial(self._done, read, its, each)

    def _maps(self, views: Sequence[View]) -> list[ImageMaps | None]:
        """The maps of images; None where they are not finite, of which others see nothing."""
        if not views:
            return []
        try:
            return list(self._detector.views(views, self._batch))
        except NotFinite:  # some models refuse all images of a call
            return [None] if len(views) == 1 else [self._maps([view])[0] for view in views]

    def _done(self, read: _Read, maps: ImageMaps | None, ms: float) -> Done:
        row: Row = {"path": as_utf8(read.image.source.location)}
        try:
            if read.view is None:
                raise ImageError(read.error)
            found = {"map": math.nan} if maps is None else maps._asdict()
            require_finite_maps(found, str(read.image.source.path))
            assert maps is not None
            return Done(read.image, row | self._judged(read, maps, ms), True)
        except UserError as error:
            line = as_utf8(" ".join(str(error).split()))
            return Done(read.image, row | {"error": line}, not isinstance(error, ImageError))

    def _judged(self, read: _Read, maps: ImageMaps, ms: float) -> Row:
        options, known, score = self._options, self._known, float(maps.score)
        values = resize_map(maps.map, read.shape)
        row: Row = {"score": score, "normalised_score": None, "verdict": None, "regions": None}
        if known is not None:
            row["normalised_score"] = float(known.normalise(score))
            row["verdict"] = DEFECTIVE if known.is_anomalous(score) else GOOD
            row["regions"] = regions_of(values, known.pixel_threshold, options.min_area)
        row |= {"height": read.shape[0], "width": read.shape[1], "ms": round(ms, 3)}
        folder, file = options.output / read.image.folder, read.image.source.path
        if options.overlays or options.maps != NONE:
            clear(folder)
        if options.overlays:
            row["overlay"] = self._named(
                write_overlay(folder, values, file, self._depth, self._scale)
            )
        if options.maps != NONE:
            row["map"] = self._named(write_map(folder, values, options.maps))
        return row

    def _named(self, file: Path) -> str:
        return as_utf8(file.relative_to(self._options.output).as_posix())


def begin(
    sources: Iterable[Source],
    seen: Seen,
    base: str,
    folds_case: bool,
    known: Callable[[Source, str], None],
) -> Iterator[Begun]:
    """The images that are new, each with its folder.

    Args:
        sources: all.
        seen: the state of each; that of what is given is `begun` from then on.
        base: see `naming`.
        folds_case: likewise.
        known: is told the state of each that is not new.
    """
    for source in sources:
        key = Key.of(source)
        state = seen.state(key)
        if state is not None:
            known(source, state)
            continue
        number = seen.others(key)
        seen.set(key, BEGUN)
        yield Begun(source, key, folder_of(source.location, base, number, folds_case))
