"""A small data set in MVTec AD's layout, drawn on the spot: two textures and one machined part.

`python -m stlm_jax.commands.draw_demo ROOT` writes it. The textures are crops of photographs
that scikit-image ships, the part is rendered; the defects are drawn (cracks, stains, chips, dents,
missing and misplaced pieces) and owe nothing to the pseudo-anomalies that training blends in.
"""

import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stlm_jax.data.demo import draw, flange, texture
from stlm_jax.data.demo.draw import Array
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.errors import UserError

SIZE = 256  # pixels
TRAIN_GOOD, TEST_GOOD, TEST_DEFECTIVE = 50, 20, 30  # of a category; training sees 40 of the 50
VERSION = 4  # of the set; raise it whenever a pixel or a file changes
MARKER = ".complete"
CATEGORIES = ("brick", "flange", "gravel")
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One image of the set: which it is, and with it everything that its pixels depend on."""

    category: str
    split: str  # train | test
    defect: str  # a defect's name, or good
    index: int

    @property
    def image(self) -> str:
        """Path of the image relative to the root."""
        return f"{self.category}/{self.split}/{self.defect}/{self.index:03d}.png"

    @property
    def mask(self) -> str | None:
        """Path of the ground truth relative to the root; None for a good image."""
        if self.defect == GOOD:
            return None
        return f"{self.category}/ground_truth/{self.defect}/{self.index:03d}_mask.png"


def defects(category: str) -> tuple[str, ...]:
    """The names of a category's defect types, sorted."""
    return tuple(sorted(flange.DEFECTS if category == "flange" else texture.DEFECTS[category]))


def samples() -> Iterator[Sample]:
    """Every image of the set, in the order of the folders."""
    for category in CATEGORIES:
        for split, count in (("train", TRAIN_GOOD), ("test", TEST_GOOD)):
            for index in range(count):
                yield Sample(category, split, GOOD, index)
        names = defects(category)
        for position, name in enumerate(names):
            for index in range(len(range(position, TEST_DEFECTIVE, len(names)))):
                yield Sample(category, "test", name, index)


def _generator(seed: int, sample: Sample, purpose: int) -> np.random.Generator:
    name = f"{sample.category}/{sample.split}/{sample.defect}/{sample.index}"
    return np.random.default_rng([seed, purpose, *name.encode()])


def draw_sample(sample: Sample, seed: int = 0, sound: bool = False) -> tuple[Array, Array]:
    """One image, (SIZE, SIZE, 3) uint8, and its ground truth, (SIZE, SIZE) uint8 in {0, 1}.

    With `sound` the defect is left out and nothing else is changed.
    """
    subject, damage, surface, camera = (_generator(seed, sample, p) for p in range(4))
    area = np.zeros((SIZE, SIZE), np.float32)
    damaged = not sound and sample.defect != GOOD
    if sample.category == "flange":
        part = flange.pose(subject, SIZE)
        if damaged:
            whole, part = part, flange.DEFECTS[sample.defect](damage, part)
            area = flange.changed(whole, part)
        scene = flange.render(part, surface)
    else:
        scene = texture.scene(sample.category, sample.split, subject, SIZE)
        if damaged:
            defect = texture.DEFECTS[sample.category][sample.defect]
            scene, area = defect(damage, scene)
    return draw.photograph(scene, camera), (area > 0.1).astype(np.uint8)


def _planned_files() -> set[str]:
    paths = {path for sample in samples() for path in (sample.image, sample.mask) if path}
    return paths | {MARKER}


def _is_complete(root: Path, marker: str) -> bool:
    try:
        if (root / MARKER).read_text() != marker:
            return False
    except OSError:
        return False
    return all((root / path).is_file() for path in _planned_files())


def _refuse_foreign_files(root: Path) -> None:
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()}
    foreign = sorted(present - _planned_files())
    if foreign:
        raise UserError(
            f"{root} holds files that are no part of the demo set, such as {foreign[0]}: "
            "give an empty or a new folder"
        )


def _write(root: Path, sample: Sample, seed: int) -> None:
    image, mask = draw_sample(sample, seed)
    targets = [(sample.image, image)] + ([(sample.mask, mask * 255)] if sample.mask else [])
    for path, pixels in targets:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / path, compress_level=3)


def _partial_folder(root: Path) -> Path:
    """A folder beside `root` for this process alone; those of dead processes here are removed."""
    prefix = f".{root.name}.partial-{socket.gethostname()}-"
    for stale in root.parent.glob(f"{glob.escape(prefix)}*"):
        try:
            os.kill(int(stale.name.removeprefix(prefix)), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(stale, ignore_errors=True)
        except OSError:
            pass
    return root.with_name(f"{prefix}{os.getpid()}")


def write_demo(root: str | os.PathLike[str], seed: int = 0) -> None:
    """Writes the set under `root`, or returns at once where it already stands complete.

    The same seed gives the same bytes. The set is written beside `root` and renamed into place, so
    a killed run leaves nothing under `root`. An older or damaged copy of the set is replaced; a
    folder that holds anything else is refused.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} is negative: give 0 or more")
    root = Path(root).absolute()
    marker = json.dumps({"version": VERSION, "seed": seed}) + "\n"
    if _is_complete(root, marker):
        return
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: give a folder for the demo set")
    if root.is_dir():
        _refuse_foreign_files(root)
    partial = _partial_folder(root)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for _ in in_threads(lambda sample: _write(partial, sample, seed), samples()):
            pass
        (partial / MARKER).write_text(marker)
        if root.is_dir():
            shutil.rmtree(root)
        partial.rename(root)
    except OSError as error:
        if not _is_complete(root, marker):  # another process may have finished first
            raise UserError(f"cannot write the demo set to {root}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
