"""Short options as the configuration's keys: a folder of photographs, a preset, a teacher."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stlm_jax.cli.options import PRESETS
from stlm_jax.data.folders import list_images
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

if TYPE_CHECKING:
    from stlm_jax.settings import Settings

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_SHORT = {"steps": "train.steps", "batch": "train.batch_size", "image_size": "image_size",
          "seed": "seed"}  # fmt: skip
_WORDS = ("demo", "random", "none")  # teachers that are no file
_NAMED = re.compile(r"(mobile_sam)|sam_(vit_[blh])")  # in the published files' names


def options_of(given: argparse.Namespace, keys: list[str], train: bool) -> list[str]:
    """The options of `stlm_jax.main` that short ones stand for, `keys` last.

    Args:
        given: of `options.add_train`.
        keys: `--config.KEY=VALUE`, as given.
        train: whether a work folder is wanted.
    """
    if given.data is None and given.config is None and given.workdir is not None:
        return [f"--workdir={given.workdir}", *_short(given), *keys]  # a run that goes on
    found = [f"--config={given.config or _preset_file(given.preset)}"]
    if given.data is not None:
        found += _data(Path(given.data))
    found += [*_teacher(given), *_short(given)]
    if train:
        name = Path(given.data).resolve().name if given.data else Path(given.config).stem
        found.append(f"--workdir={given.workdir or Path('runs') / name}")
    return [*found, *keys]


def _preset_file(name: str) -> Path:
    file = _CONFIGS / PRESETS[name][0]
    if not file.is_file():
        raise UserError(f"{file} is not there: presets are in a clone of the repository")
    return file


def _data(folder: Path) -> Iterator[str]:
    """A tree of the known layout, or a folder of good images."""
    if not folder.is_dir():
        raise UserError(f"--data={folder}: is not a folder; give one of good photographs")
    parts = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    if any((part / "train/good").is_dir() for part in parts):
        yield from ("--config.data.source=folder", f"--config.data.root={folder}")
    elif list_images(folder):
        yield from ("--config.data.source=folder", f"--config.data.train_dir={folder}")
    else:
        raise UserError(
            f"--data={folder}: holds no image and no train/good/; put good photographs into it"
        )


def _teacher(given: argparse.Namespace) -> Iterator[str]:
    """The teacher, and a student that fits its width."""
    teacher = given.teacher
    if teacher is None:
        return
    yield f"--config.teacher.checkpoint={teacher}"
    if teacher == "demo":
        yield "--config.teacher.name=demo"
    elif teacher not in _WORDS:
        if not Path(teacher).exists():
            raise UserError(f"--teacher={teacher}: no such file; or give demo, random, none")
        yield f"--config.teacher.name={_sam_of(teacher)}"
        if given.config is None and given.preset != "published":
            note("the student of this preset starts anew, as its first weights are not of this "
                 "teacher: more steps are wanted, see --steps")  # fmt: skip
            yield from ("--config.student.checkpoint=", "--config.student.map_init_scale=0.1")


def _sam_of(file: str) -> str:
    """Which SAM a file is, by its published name or else by its tensors."""
    named = _NAMED.search(Path(file).name)
    if named:
        return named[1] or named[2]
    from stlm_jax.weights.load import read_file, sam_name  # here: it reads the file

    return sam_name(file, read_file(file))


def _short(given: argparse.Namespace) -> Iterator[str]:
    for name, key in _SHORT.items():
        value = getattr(given, name)
        if value is not None:
            yield f"--config.{key}={value}"


def tell_preset(given: argparse.Namespace, settings: "Settings") -> None:
    """Prints the preset, if one is used, and what of a configuration one wants to know first."""
    if given.config is not None or given.data is None:
        return
    config = settings.config
    length = (
        f"{config.train.steps} steps" if config.train.steps else f"{config.train.epochs} epochs"
    )
    note(
        f"preset {given.preset}: {PRESETS[given.preset][1]}; student {config.student.encoder}, "
        f"teacher {config.teacher.name}, {config.image_size} px, {length} of "
        f"{config.train.batch_size} images; work folder {settings.workdir}"
    )
