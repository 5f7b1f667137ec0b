"""The model that a command line names: where it is, what tells it from others, loading it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stlm_jax.data.folders import files_below
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import local_copy, path_of
from stlm_jax.workdir import (
    CALIBRATION,
    CHECKPOINTS,
    COMPILATION_CACHE,
    CONFIG,
    DEPTH,
    newest_step,
    trained_categories,
)

if TYPE_CHECKING:
    from stlm_jax.inference.detector import Detector

_STUDENT = "student"  # the part of a checkpoint that predicts
_CHUNK = 2**20  # bytes
_WITHOUT_JAX = (".onnx", ".xml")


def find_model(name: str, category: str = "") -> Path:
    """The category's folder or the file of a model, given that or a run's folder.

    Where a run has several categories, `category` is the one wanted.
    """
    path = path_of(name)
    if not path.exists():
        raise UserError(f"MODEL {name}: no such file or folder")
    if path.is_dir() and path.name == CHECKPOINTS:
        path = path.parent
    if not (path / CONFIG).is_file():
        if category and (category != path.name or not path.is_dir()):
            raise UserError(f"--category={category}: MODEL {name} is no workdir with categories")
        return path
    trained = trained_categories(path)
    if not trained:
        raise UserError(f"MODEL {name}: no category was trained in it")
    if not category and len(trained) > 1:
        raise UserError(
            f"MODEL {name}: has {', '.join(trained)}: choose with --category={trained[0]}"
        )
    if category and category not in trained:
        raise UserError(f"--category={category}: MODEL {name} has {', '.join(trained)}")
    return path / (category or trained[0])


def digest_of(model: Path, segmentation: str | None = None) -> str:
    """SHA-256 of what makes a model's results: its weights, thresholds and description."""
    digest = hashlib.sha256()
    for label, path in _files_of(model, segmentation):
        content = hashlib.sha256()
        with open(local_copy(path), "rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        digest.update(f"{label}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _files_of(model: Path, segmentation: str | None) -> Iterator[tuple[str, Path]]:
    if model.is_dir():
        step = newest_step(model)
        saved = model / CHECKPOINTS / str(step)
        saved = saved / _STUDENT if (saved / _STUDENT).is_dir() else saved
        if step is not None:
            for path in sorted(files_below(saved)):
                yield path.relative_to(saved).as_posix(), path
        beside = [model / CALIBRATION, model / DEPTH, model.parent / CONFIG]
    else:
        yield "file", model
        beside = [model.with_name(f"{model.name}.json")]  # what an export says of itself
    if segmentation is not None:
        beside.append(path_of(segmentation))
    yield from ((path.name, path) for path in beside if path.is_file())


def load(model: Path, segmentation: str | None = None, image_size: int | None = None) -> "Detector":
    """Loads what `find_model` gave; programs that are compiled for it are kept on disk."""
    from stlm_jax.inference.detector import Detector  # here: it takes seconds, and mistakes none

    if not needs_jax(model):
        return Detector.load(model, segmentation, image_size)
    from stlm_jax.runtime.compilation import DEFAULT_PRECISION
    from stlm_jax.runtime.process import prepare

    if model.is_dir():
        cache = model.parent / COMPILATION_CACHE
    else:
        kept = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(kept) / "stlm_jax" / COMPILATION_CACHE
    prepare(DEFAULT_PRECISION, cache)
    return Detector.load(model, segmentation, image_size)


def needs_jax(model: Path) -> bool:
    """Whether JAX runs what `find_model` gave; if not, it runs on the CPU and JAX stays unknown."""
    return model.suffix not in _WITHOUT_JAX
