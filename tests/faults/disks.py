"""Disks that are full or cannot be written to: `python tests/faults/disks.py FOLDER [WORK …]`.

Each work of `works.py` is begun where a disk of a few MiB, made for it, has no room or too little,
and where that disk is read-only; then there is room and the same command goes on. Printed, as JSON,
is by work: how each start ended and what was its last line, what was wrong of what is there.

It mounts what it needs in a namespace of its own, which it enters by util-linux's `unshare`.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from random_kills import Runner, leftovers, prepare, unlike
from works import DISK_WORKS, Work

SIZE = 64 << 20  # bytes of the disk


def in_namespace(command: list[str]) -> list[str]:
    """A command that may mount, seen by nobody else."""
    return ["unshare", "--user", "--map-root-user", "--mount", *command]


def can_mount(folder: pathlib.Path) -> str:
    """Why no disk can be made here; empty where one can."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        ended = subprocess.run(in_namespace(mount), capture_output=True, text=True)
    except FileNotFoundError:
        return "unshare of util-linux is not here"
    return ended.stderr.strip()


class Disk:
    """A small one."""

    def __init__(self, place: pathlib.Path):
        self.place = place
        place.mkdir(exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs")

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, str(self.place)], check=True)

    def fill(self, room: int) -> None:
        """Leaves so many bytes free."""
        free = shutil.disk_usage(self.place).free
        with open(self.place / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - room))

    def empty(self) -> None:
        (self.place / "ballast").unlink()

    def read_only(self, is_so: bool) -> None:
        self._mount("-o", "remount,ro" if is_so else "remount,rw")


def attempt(runner: Runner, place: pathlib.Path) -> dict[str, Any]:
    """How a start ended, its last line, and whether it said more than lines."""
    status = runner.start(place, 0)
    text = runner.log.read_text(errors="replace")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return {"status": status, "last": last, "traceback": "Traceback" in text, "text": text[-1500:]}


def suffer(work: Work, folder: pathlib.Path) -> dict[str, Any]:
    """One work on disks without room, with too little, and read-only."""
    runner, disk = Runner(work, folder), Disk(folder / "disk")
    whole_place = folder / work.name / "on_a_large_disk"
    work.ready(runner.base, whole_place)
    first = attempt(runner, whole_place)
    assert first["status"] == 0, first
    whole = runner.facts(whole_place, work.facts)
    wrong, told = [], {}
    place = disk.place / work.name
    work.ready(runner.base, place)
    for name, room in work.rooms.items():
        disk.fill(room)
        told[name] = attempt(runner, place)
        disk.empty()
        there = runner.facts(place, work.partly)
        wrong += [f"{name}: {line}" for line in unlike(there, whole, there)]
    disk.read_only(True)
    told["read-only"] = attempt(runner, place)
    disk.read_only(False)
    told["room"] = attempt(runner, place)
    there = runner.facts(place, work.facts)
    wrong += [f"at the end: {line}" for line in unlike(there, whole, there | whole)]
    wrong += [f"{path} is left" for path in leftovers(place)]
    shutil.rmtree(place)
    subprocess.run(["umount", str(disk.place)], check=True)
    return {"told": told, "wrong": wrong}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("works", nargs="*", metavar="WORK")
    given = parser.parse_args()
    for name in set(given.works) - {work.name for work in DISK_WORKS}:
        parser.error(f"{name}: no such work")
    return given


def main(folder: pathlib.Path, names: list[str]) -> None:
    prepare(folder)
    works = [work for work in DISK_WORKS if not names or work.name in names]
    print(json.dumps({work.name: suffer(work, folder) for work in works}, indent=1))


if __name__ == "__main__":
    given = arguments()
    if os.environ.get("STLM_DISKS") != "mine":
        os.environ["STLM_DISKS"] = "mine"
        os.execvp("unshare", in_namespace([sys.executable, *sys.argv]))
    main(given.folder.resolve(), given.works)
