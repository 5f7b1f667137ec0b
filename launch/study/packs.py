"""Which trials of a study are trained in one program, and by which command."""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from launch.study.studies import Settings, parted, shown, text_of
from stlm_jax import settings as command_line
from stlm_jax.config import configurations
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

_LONGEST = 80  # of a folder's name


@dataclasses.dataclass(frozen=True)
class Pack:
    """Trials of one program: settings that differ in numbers alone, each with every seed.

    Attributes:
        folder: of the program's run, an ensemble, whose runs have folders in it.
        common: what changes the program, by key, and is the same for all.
        settings: what each changes besides, by name.
        seeds: of each.
    """

    folder: Path
    common: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.folder.name

    def trials(self) -> list[tuple[str, int]]:
        """Its settings and seeds."""
        return [(setting, seed) for setting in self.settings for seed in self.seeds]

    def run_folder(self, setting: str, seed: int) -> Path:
        """Where a trial's run is."""
        return self.folder / f"{setting}_seed{seed}"

    def options(self, base: Sequence[str]) -> list[str]:
        """Those of `stlm_jax.main`, after the `base`'s own."""
        common = [f"--config.{key}={text_of(value)}" for key, value in self.common.items()]
        return [
            *base,
            f"--workdir={self.folder}",
            *common,
            f"--config.ensemble.seeds={','.join(map(str, self.seeds))}",
            *(
                f"--config.ensemble.settings.{name}={shown(changes)}"
                for name, changes in self.settings.items()
            ),
        ]

    def command(self, base: Sequence[str]) -> list[str]:
        """That trains and evaluates it."""
        return [sys.executable, "-m", "stlm_jax.main", *self.options(base)]

    def config(self, base: Sequence[str]) -> ml_collections.ConfigDict:
        """Of the ensemble."""
        parsed = command_line.parse(["stlm_jax.main", *self.options(base)])
        assert parsed is not None
        return parsed.config

    def configs(self, base: Sequence[str]) -> dict[tuple[str, int], ml_collections.ConfigDict]:
        """Of each trial's run alone."""
        runs = configurations(self.config(base))
        return {
            (setting, seed): runs[self.run_folder(setting, seed).name]
            for setting, seed in self.trials()
        }

    def only(self, settings: Sequence[str], seeds: Sequence[int] | None = None) -> "Pack":
        """The same for some of its settings and seeds."""
        chosen = {name: self.settings[name] for name in settings}
        return dataclasses.replace(self, settings=chosen, seeds=tuple(seeds or self.seeds))


def packs_of(settings: Settings, seeds: Sequence[int], workdir: Path) -> list[Pack]:
    """Settings by what changes the program, in their order.

    A pack's folder is named by that, so that it is found again whatever else a study comes to hold.
    """
    packs: dict[str, Pack] = {}
    for name, changes in settings.items():
        common, numbers = parted(changes)
        folder = path_of(workdir) / _folder(common)
        pack = packs.setdefault(folder.name, Pack(folder, common, {}, tuple(seeds)))
        packs[folder.name] = dataclasses.replace(pack, settings={**pack.settings, name: numbers})
    return list(packs.values())


def _folder(common: Mapping[str, Any]) -> str:
    if not common:
        return "base"
    text = ",".join(f"{key}={text_of(value)}" for key, value in sorted(common.items()))
    name = re.sub(r"[^A-Za-z0-9_.,=-]", "_", text)
    if name == text and len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[:_LONGEST]}-{digest}"


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds of `--seeds`: 3 means 0, 1, 2; a list means itself."""
    parts = [part.strip() for part in text.split(",")]
    if parts[1:] == [""]:
        parts = parts[:1]
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts):
        raise UserError(f"--seeds={text}: give how many, such as 3, or a list such as 0,1,2")
    if "," not in text:
        if not 1 <= int(text) <= 1000:
            raise UserError(f"--seeds={text}: give 1 to 1000; one seed alone has a comma: 7,")
        return tuple(range(int(text)))
    return tuple(map(int, parts))
