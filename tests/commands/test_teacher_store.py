"""The command that writes features: whatever ends it, what is there is whole and it goes on."""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

import jax
import pytest
from miniature import write_set

from stlm_jax.commands.teacher_store import main
from stlm_jax.training.feature_store import FeatureStore

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = 3
RECORD = 2 * 4 * 4 * 32 * 2  # bytes of two levels of 4 × 4 × 32 numbers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_set(folder)
    return folder


def command(place, store, *options):
    return [
        "teacher_store",
        f"--config={place / 'tiny.py'}",
        f"--config.teacher.store={place / store}",
        f"--config.teacher.store_variants={VARIANTS}",
        *options,
    ]


def contents(store):
    return {path.relative_to(store): path.read_bytes() for path in store.rglob("*.array_record")}


@pytest.fixture(scope="module")
def whole(place):
    """The files of a store that was written in one go."""
    assert main(command(place, "whole")) == 0
    return contents(place / "whole")


def test_the_need_is_said_before_and_a_file_an_image_is_written(place, whole, capsys):
    assert main(command(place, "again")) == 0
    printed = capsys.readouterr().err
    need = re.search(r"features of 10 images, .* of 3 variants, take (\S+) GiB", printed)
    # Five images that do not turn, with one clean image each; five of which each variant turns.
    assert float(need[1]) == pytest.approx(5 * (4 + 6) * RECORD / 2**30, rel=1e-2)
    assert need.start() < printed.index("write disc") < printed.index("write ring")
    assert contents(place / "again") == whole
    assert sorted(str(path.parent) for path in whole) == ["disc"] * 5 + ["ring"] * 5
    before = {path: path.stat().st_mtime_ns for path in (place / "again").rglob("*.array_record")}
    assert main(command(place, "again")) == 0
    assert "disc: all 5 images were there before" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_images_that_a_run_holds_out_are_written_too(place, whole):
    assert main(command(place, "held_out", "--config.calibration.held_out=0.4")) == 0
    assert contents(place / "held_out") == whole


def at_write(monkeypatch, number, act):
    """Has the store's write of so many images do `act` in place of the last one's."""
    write, calls = FeatureStore.write, []

    def acting(*arguments):
        calls.append(1)
        return act(write, *arguments) if len(calls) == number else write(*arguments)

    monkeypatch.setattr(FeatureStore, "write", acting)


def test_a_full_disk_leaves_what_is_there_and_the_command_goes_on(
    place, whole, monkeypatch, capsys
):
    def on_a_full_disk(write, *arguments):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (RECORD, limit[1]))
        try:
            write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    with monkeypatch.context() as patch:
        at_write(patch, 3, on_a_full_disk)
        assert main(command(place, "full")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"^error: .*array_record: cannot be written \(.*File too large.*free some", line
    )
    there = contents(place / "full")
    assert len(there) == 2 and there.items() <= whole.items()
    assert not list((place / "full").rglob("*.tmp"))
    assert main(command(place, "full")) == 0
    assert contents(place / "full") == whole


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_stops_between_files(place, whole, monkeypatch, capsys, name, status):
    def signalled(write, *arguments):
        signal.raise_signal(getattr(signal, name))
        write(*arguments)

    with monkeypatch.context() as patch:
        at_write(patch, 2, signalled)
        assert main(command(place, name)) == status
    assert "what is written can be used" in capsys.readouterr().err.splitlines()[-1]
    assert len(contents(place / name)) == 1 and not (place / name / "lock").exists()
    assert main(command(place, name)) == 0
    assert contents(place / name) == whole


def test_a_killed_writer_goes_on(place, whole):
    """SIGKILL when the third file is complete and has not got its name."""
    arguments = command(place, "killed")
    code = f"""
import os, signal
from stlm_jax.commands.teacher_store import main
from stlm_jax.training import feature_store
rename, calls = os.replace, []
def deadly(source, target):
    if str(target).endswith(feature_store.SUFFIX):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = deadly
main({arguments!r})
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(contents(place / "killed")) == 2
    assert len(list((place / "killed").rglob("*.tmp"))) == 1
    assert main(arguments) == 0
    assert contents(place / "killed") == whole
    assert not list((place / "killed").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--config.teacher.store_variants=4"], r"store_variants 3, the run's is 4"),
        (["--config.seed=1", "--config.teacher.checkpoint=random"], r"weights of the teacher"),
        (["--config.image_size=96"], r"config\.image_size 64, the run's is 96"),
        (["--config.pseudo.beta_max=0.5"], r"config\.pseudo\.beta_max 0\.8, the run's is 0\.5"),
        (["--config.teacher.checkpoint=none"], r"a store is of a teacher"),
        (["--config.teacher.store="], r"teacher\.store is empty"),
    ],
)
def test_a_store_of_other_settings_is_not_added_to(place, whole, capsys, options, says):
    assert main(command(place, "whole", *options)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and re.search(says, lines[-1])
    assert contents(place / "whole") == whole


def test_images_that_turn_otherwise_are_not_added_to(place, whole, capsys):
    other = place / "turned.py"
    other.write_text((place / "tiny.py").read_text().replace('ring = "small"', 'ring = "none"'))
    arguments = command(place, "whole")
    assert main([arguments[0], f"--config={other}", *arguments[2:]]) == 2
    assert re.search(r"ring: .*data\.rotation small, now it is none", capsys.readouterr().err)


def test_what_does_not_fit_is_warned_of(place, whole, monkeypatch, capsys):
    usage = shutil.disk_usage(place)._replace(free=100)
    monkeypatch.setattr("stlm_jax.training.store_writer.shutil.disk_usage", lambda _: usage)
    assert main(command(place, "tight")) == 0
    assert "warning: " in (printed := capsys.readouterr().err) and "disk will be full" in printed


def test_the_description_names_what_the_features_are_of(place, whole):
    said = json.loads((place / "whole/store.json").read_text())
    assert (said["teacher"], said["image_size"], said["variants"]) == ("vit_tiny", 64, VARIANTS)
    assert said["shape"] == [2, 4, 4, 32] and len(said["weights"]) == 64
