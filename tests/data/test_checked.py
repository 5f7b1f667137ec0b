"""A run that is started again reads those images only that have changed, and says what it said."""

import json
import os
import shutil

import numpy as np
import pytest
from miniature import write_config
from PIL import Image

from stlm_jax.data import dataset, inspection
from stlm_jax.main import main
from stlm_jax.workdir import DATA_CHECK

WARNING = "warning: duplicate: "


@pytest.fixture(scope="module")
def place(finished_run, tmp_path_factory):
    """A run of data with two equal images, which is said once it is checked."""
    folder = tmp_path_factory.mktemp("checked")
    for name in ("data", "run"):
        shutil.copytree(finished_run / name, folder / name)
    shutil.copy(folder / "data/disc/train/good/000.png", folder / "data/disc/test/good/009.png")
    write_config(folder / "tiny.py", folder / "data")
    return folder


@pytest.fixture
def start(place, monkeypatch, capsys):
    """Starts the run again: how many images were read by the check, and what was said."""

    def start(*options):
        read = []
        inspect = inspection.inspect
        monkeypatch.setattr(inspection, "inspect", lambda *a: read.append(a) or inspect(*a))
        command = [f"--config={place / 'tiny.py'}", f"--workdir={place / 'run'}", *options]
        monkeypatch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
        capsys.readouterr()
        status = main(["main", *command])
        monkeypatch.setattr(inspection, "inspect", inspect)
        return status, len(read), capsys.readouterr().err

    return start


def test_it_reads_what_has_changed_and_repeats_its_warnings(place, start):
    status, read, first = start()
    assert (status, read) == (0, 21) and first.count(WARNING) == 1
    status, read, again = start()
    assert (status, read) == (0, 0) and again.count(WARNING) == 1
    changed = place / "data/disc/test/good/009.png"
    Image.fromarray(np.full((70, 80, 3), 99, np.uint8)).save(changed)
    status, read, new = start()
    assert (status, read) == (0, 21) and WARNING not in new
    assert start("--config.data.mask=nonzero")[:2] == (0, 21)
    os.utime(changed, ns=(1, 1))
    assert start()[:2] == (0, 21)
    changed.unlink()
    assert start()[:2] == (0, 20)


def test_what_a_run_stops_at_is_not_forgotten(place, start):
    assert start()[:2] in ((0, 20), (0, 0))
    broken = place / "data/ring/test/good/000.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    for _ in range(2):
        status, read, said = start()
        assert (status, read) == (2, 20) and str(broken) in said.splitlines()[-1]
    broken.write_bytes(content)
    assert start()[0] == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"of": 1, "problems": 2}', "null"])
def test_a_damaged_file_is_replaced(place, start, content):
    known = place / "run" / DATA_CHECK
    start()
    whole = known.read_text()
    known.write_text(content)
    status, read, _ = start()
    assert status == 0 and read >= 20 and known.read_text() == whole


def test_evaluation_reads_none_of_them_again(place, start):
    start()
    assert start("--mode=evaluate")[:2] == (0, 0)
    known = json.loads((place / "run" / DATA_CHECK).read_text())
    assert known["of"]


def test_it_is_told_by_more_than_names(place):
    from stlm_jax.data.checked import identity
    from stlm_jax.settings import parse

    config = parse(["main", f"--config={place / 'tiny.py'}"]).config
    records = dataset.scan(config, "disc").records
    whole = identity(config, records)
    assert whole and identity(config, records) == whole
    config.train.batch_size = 3
    assert identity(config, records) != whole
    config.train.batch_size = 2
    assert identity(config, records[:-1]) != whole


def test_an_image_that_kept_its_size_and_time_is_read_again(place, start):
    """As `cp --preserve` over it leaves it, or a clock that was set back."""
    start()
    assert start()[1] == 0
    path = place / "data/disc/test/good/000.png"
    stat = path.stat()
    content = path.read_bytes()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    status, read, said = start()
    path.write_bytes(content)
    assert status == 2 and read > 0 and str(path) in said.splitlines()[-1]


def test_times_in_the_future_are_times_like_others(place, start):
    for path in (place / "data").rglob("*.png"):
        os.utime(path, (4e9, 4e9))  # in 2096
    assert start()[1] > 0
    assert start()[1] == 0
