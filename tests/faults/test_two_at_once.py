"""Two at once where one writes: the second is refused in a line that names the first."""

import os
import shutil

import pytest
from miniature import write_config

from stlm_jax.cli.main import main as stlm
from stlm_jax.commands import teacher_store
from stlm_jax.main import main
from stlm_jax.runtime.lock import only_here


@pytest.fixture
def place(finished_run, tmp_path):
    for name in ("data", "run"):
        shutil.copytree(finished_run / name, tmp_path / name)
    write_config(tmp_path / "tiny.py", tmp_path / "data", ["disc"])
    return tmp_path


def refused(capsys, folder, command, lock="lock"):
    """The last line of a command that finds another, this process itself, in `folder`."""
    capsys.readouterr()
    with only_here(folder / lock):
        assert command() == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"error: {folder}: process {os.getpid()} on {os.uname()[1]} "), line
    assert "wait for its end" in line and "give another" in line or "use another" in line
    return line


def test_two_stores(place, capsys):
    store = place / "store"
    options = [f"--config={place / 'tiny.py'}", f"--config.teacher.store={store}"]
    assert "writes to it" in refused(
        capsys, store, lambda: teacher_store.main(["teacher_store", *options])
    )
    assert not list(store.rglob("*.array_record")) and not (store / "store.json").exists()


def test_two_predictions(place, capsys):
    source = place / "data/disc/test/spot"
    options = [f"--config={place / 'tiny.py'}", f"--workdir={place / 'run'}", "--mode=predict"]
    command = ["main", *options, f"--config.predict.input={source}"]
    output = place / "run/results/predict/disc"
    line = refused(capsys, output, lambda: main(command), lock=".lock")
    assert "writes predictions into it" in line
    assert not any(output.iterdir())
    assert main(command) == 0
    assert not (output / ".lock").exists() and (output / "scores.json").is_file()


def test_two_builds(place, capsys):
    command = ["stlm", "build", "mvtec_ad", f"--raw={place / 'data'}", "--categories=disc"]
    command += [f"--data_dir={place / 'built'}"]
    folder = place / "built/mvtec_ad/disc"
    assert "writes this category" in refused(capsys, folder, lambda: stlm(command))
    assert not any(folder.iterdir())
    (folder / "incomplete.ABC123_1.0.0").mkdir()  # of one that was killed
    assert stlm(command) == 0
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]
