"""The census of faults as a table: `python tests/faults/census.py`.

Every kind of `kinds.py` is tried through the command line; it is good if the exit status, the last
line and what is left of the trained run are as they must be. The tests run the very same.
"""

import contextlib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (0, 1, 2)]

from kinds import GOOD, KINDS, Kind, trained_files  # noqa: E402
from miniature import write_config, write_dataset  # noqa: E402

from stlm_jax.main import main  # noqa: E402


def try_kind(kind: Kind, master: pathlib.Path, place: pathlib.Path) -> str:
    """What is wrong with how the program takes a kind; empty where it is good.

    `master` is a folder with `data`, `tiny.py` and `run`; `place` is where its copy is spoilt.
    """
    place.mkdir()
    for name in ("data", "run") if not kind.parsed else ():
        shutil.copytree(master / name, place / name, ignore=shutil.ignore_patterns("results"))
    write_config(place / "tiny.py", place / "data")
    arguments = [str(part) for part in kind.prepare(place)]
    before = trained_files(place)
    usual = {"--config": place / "tiny.py", "--workdir": place / "run"}
    twice = kind.name.split(": ")[1].split(",")[0] in ("configuration twice", "workdir twice")
    given = {argument.split("=")[0] for argument in arguments}
    first = [f"{name}={value}" for name, value in usual.items() if twice or name not in given]
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = main(["main", *first, *arguments])
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        after = trained_files(place)
        shutil.rmtree(os.fsencode(place))
    lines = errors.getvalue().strip().split("\n")
    if status != kind.status:
        return f"status {status}, not {kind.status}: {lines[-1]}"[:300]
    if "Traceback" in errors.getvalue() + output.getvalue():
        return "a traceback"
    if kind.status != GOOD:
        refusals = [line for line in lines if line.startswith("error: ")]
        if refusals != lines[-1:]:
            return f"not one line of error at the end: {lines[-2:]}"[:300]
        if after != before:
            return "the trained run was changed"
        lines = lines[-1:]
    if not any(re.search(kind.says, line) for line in lines):
        return f"says {lines[-1]!r}, not {kind.says!r}"[:300]
    return ""


def _table() -> int:
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        master = pathlib.Path(folder) / "master"
        write_dataset(master / "data")
        config = write_config(master / "tiny.py", master / "data")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["main", f"--config={config}", f"--workdir={master / 'run'}"]) == 0
        for kind in KINDS:
            wrong = try_kind(kind, master, pathlib.Path(folder) / "place")
            rows.setdefault(kind.name.split(":")[0], []).append(wrong)
            if wrong:
                print(f"bad: {kind.name}: {wrong}", flush=True)
    rows["all"] = [wrong for group in rows.values() for wrong in group]
    print("| kinds | tried | good |\n|---|--:|--:|")
    for name, results in rows.items():
        print(f"| {name} | {len(results)} | {results.count('')} |")
    return int(any(rows["all"]))


if __name__ == "__main__":
    sys.exit(_table())
