"""Checkpoints in a bucket, where nothing is renamed: complete or not there, and damage is found."""

import numpy as np
import pytest
from bucket_server import BUCKET, served_bucket

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.workdir import newest_step, trained_categories

COMPLETE = "commit_success.txt"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        yield path_of(BUCKET)


@pytest.fixture
def category(bucket, tmp_path):
    """A category's folder with the checkpoints of steps 2 and 3; the one of step 1 was dropped."""
    folder = bucket / tmp_path.name / "disc"
    with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, student(step), training(step), {"position": step})
    return folder


def student(step):
    weights = np.random.default_rng(step).normal(size=(3, 4)).astype(np.float32)
    return {"params": {"layer": {"kernel": weights}}, "batch_stats": {"mean": np.full(4, step)}}


def training(step):
    return {"count": np.int32(step), "mu": [np.arange(5, dtype=np.float64) * step, np.zeros(())]}


def restored(category, **options):
    with Checkpoints(category / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(student(0), training(0), **options)


def test_what_was_saved_is_restored(category):
    found = restored(category)
    assert (found.step, found.data) == (3, {"position": 3})
    np.testing.assert_array_equal(
        found.student["params"]["layer"]["kernel"], student(3)["params"]["layer"]["kernel"]
    )
    np.testing.assert_array_equal(found.training["mu"][0], training(3)["mu"][0])
    assert found.training["count"] == 3 and newest_step(category) == 3
    assert trained_categories(category.parent) == ["disc"]
    steps = {path.name for path in (category / "checkpoints").iterdir()}
    assert steps == {"2", "3"}


def test_one_whose_save_was_killed_is_not_there(category):
    (category / "checkpoints/3" / COMPLETE).unlink()
    assert restored(category).step == newest_step(category) == 2
    with Checkpoints(category / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [2]
        checkpoints.save(3, student(5), training(5), {"position": 5})
    assert restored(category).data == {"position": 5} and newest_step(category) == 3


def test_a_damaged_one_gives_way_to_the_one_before(category, capsys):
    files = [path for path in (category / "checkpoints/3/student").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size if "/d/" in str(path) else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert restored(category).step == 2
    assert "3: damaged, ignored" in capsys.readouterr().err


def test_a_refusal_is_one_line(category, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("PERMISSION_DENIED: no storage.objects.create [gs://bucket/x]")

    with Checkpoints(category / "checkpoints") as checkpoints:
        monkeypatch.setattr(type(checkpoints._manager), "save", refuse)
        with pytest.raises(UserError, match=r"^gs://.*: checkpoint 4 .* not writable; .* 3 is"):
            checkpoints.save(4, student(4), training(4), None)
            checkpoints.wait()


def test_there_is_none_where_nothing_was_saved(bucket):
    with Checkpoints(bucket / "none/checkpoints", read_only=True) as checkpoints:
        assert checkpoints.restore(student(0)) is None
