"""A prediction from its options to its end: what `stlm_jax.commands.predict` does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stlm_jax import __version__
from stlm_jax.prediction import model
from stlm_jax.prediction.journal import Journal
from stlm_jax.prediction.naming import LOCK, folds_case
from stlm_jax.prediction.options import STOP, Options
from stlm_jax.prediction.sources import Source, Sources
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.paths import in_bucket
from stlm_jax.runtime.progress import Progress, note
from stlm_jax.runtime.text import as_utf8

if TYPE_CHECKING:
    from stlm_jax.inference.detector import Detector

_BATCH = 8  # images in a call on an accelerator
_IN_USE = "writes predictions into it: wait for its end, or give another --output=DIR"


def run(options: Options) -> int:
    """Predicts; the exit status: 0, or 1 where an image could not be judged."""
    if in_bucket(options.output):
        raise UserError(f"--output={options.output}: rows are appended, which a bucket cannot do")
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output={options.output}: is a file: give a folder")
    path = model.find_model(options.model, options.category)
    if options.watch:
        from stlm_jax.prediction.watch import Watched  # here, as below: they import JAX

        watched = Watched(options)
        base, total = watched.base, None
    else:
        sources = Sources(options.inputs, options.recursive, options.output)
        base, total = sources.base, sources.total
        if total == 0:
            raise UserError(f"INPUT {', '.join(options.inputs)}: there is no image")
    with opened(options, path, base) as journal:
        detector = model.load(path, options.segmentation, options.image_size)
        journal.open(
            version=__version__,
            model_path=as_utf8(path),
            description=detector.description.values(),
        )
        if options.watch:
            return watched.judge(detector, journal, options.batch or 1)
        batch = options.batch or _default_batch(path)
        return _judge_all(options, detector, journal, sources, total, batch)


@contextlib.contextmanager
def opened(options: Options, path: Path, base: str) -> Iterator[Journal]:
    """The journal of an output, which no other process has at the same time."""
    about = {
        "model": model.digest_of(path, options.segmentation),
        "options": options.of_results,
    }
    with (
        only_here(options.output / LOCK, _IN_USE),
        Journal(options.output, about, base, options.overwrite) as journal,
    ):
        yield journal


def _judge_all(
    options: Options,
    detector: "Detector",
    journal: Journal,
    sources: Sources,
    total: int | None,
    batch: int,
) -> int:
    from stlm_jax.prediction.judge import Judge, begin
    from stlm_jax.prediction.tally import Tally

    batch = batch if total is None else min(batch, total)
    tally = Tally(options.quiet)
    try:
        with Progress("predict", total) as progress:

            def knew(_: Source, state: str) -> None:
                tally.knew(state)
                progress.update()

            images = begin(sources, journal.seen, journal.base, folds_case(options.output), knew)
            judge = Judge(detector, options, batch)
            with contextlib.closing(judge.rows(images, ahead=batch + 4)) as rows:
                for done in rows:
                    if "error" in done.row and options.on_error == STOP:
                        raise UserError(done.row["error"])
                    journal.append(done.image.key, done.row)
                    tally.add(done.row)
                    progress.update()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; {tally.judged} judged now: {journal.path}; the same command goes on"
        ) from None
    tally.tell(journal.path)
    return tally.status


def _default_batch(path: Path) -> int:
    if not model.needs_jax(path):
        return 1
    import jax

    if jax.default_backend() == "cpu":
        return 1
    note(f"{_BATCH} images go through the model at once; --batch=N changes that")
    return _BATCH
