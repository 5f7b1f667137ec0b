"""The demo set: the same bytes on every run, honest splits, masks that mark what was damaged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stlm_jax.commands import draw_demo
from stlm_jax.data.demo import dataset, texture
from stlm_jax.data.sources.trees import MVTEC_AD
from stlm_jax.runtime.errors import UserError


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(dataset, "TRAIN_GOOD", 2)
    monkeypatch.setattr(dataset, "TEST_GOOD", 1)
    monkeypatch.setattr(dataset, "TEST_DEFECTIVE", 4)


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def test_counts_of_the_full_set():
    for category in dataset.CATEGORIES:
        mine = [s for s in dataset.samples() if s.category == category]
        assert sum(s.split == "train" for s in mine) == 50
        assert sum(s.split == "test" and s.defect == "good" for s in mine) == 20
        damaged = [s.defect for s in mine if s.defect != "good"]
        assert len(damaged) == 30
        assert len(set(damaged)) >= 3
        assert min(damaged.count(name) for name in set(damaged)) >= 7


def test_same_seed_same_bytes_other_seed_other_images(tmp_path, few):
    dataset.write_demo(tmp_path / "a")
    assert draw_demo.main([str(tmp_path / "b"), "--seed", "0"]) == 0
    dataset.write_demo(tmp_path / "c", seed=1)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a if "/ground_truth/" not in name)
    images = [data for name, data in a.items() if "/ground_truth/" not in name]
    assert len(set(images)) == len(images)


def test_layout_is_what_the_reader_reads(tmp_path, few):
    root = tmp_path / "new" / "demo"
    dataset.write_demo(root)
    assert MVTEC_AD.find_categories(root) == sorted(dataset.CATEGORIES)
    for category in dataset.CATEGORIES:
        records = MVTEC_AD.scan(root, category).records
        assert [r.split for r in records].count("train") == 2
        assert sum(r.label for r in records) == 4
        for record in records:
            with Image.open(record.image) as image:
                assert (image.mode, image.size) == ("RGB", (256, 256))
            if record.mask:
                with Image.open(record.mask) as mask:
                    assert (mask.mode, mask.size) == ("L", (256, 256))
                    assert set(np.unique(np.asarray(mask))) == {0, 255}


@pytest.mark.parametrize("category", ["brick", "gravel"])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_and_test_crops_share_no_pixel(category, seed):
    covered = {}
    for split, count in (("train", 50), ("test", 50)):
        boxes = [
            texture.crop_box(split, dataset._generator(seed, sample, 0))
            for sample in dataset.samples()
            if (sample.category, sample.split) == (category, split)
        ]
        assert len(boxes) == count
        assert len(set(boxes)) > count // 2
        covered[split] = np.zeros((512, 512), bool)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= 512 and 0 <= top < bottom <= 512
            assert right - left == bottom - top < 256
            covered[split][top:bottom, left:right] = True
    assert not (covered["train"] & covered["test"]).any()


def test_a_crop_is_cut_where_its_box_says(monkeypatch):
    """An image of a photograph that encodes its column shows only columns of the split."""
    ramp = np.broadcast_to((np.arange(512) // 2).astype(np.uint8), (512, 512))
    monkeypatch.setattr(texture, "_photograph", lambda _: Image.fromarray(ramp.copy()))
    for split, (low, high) in (("train", (0, 316)), ("test", (320, 512))):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            scene = texture.scene("gravel", split, rng, 256)
            columns = 2 * 255 * scene[..., 1] / texture.TINTS["gravel"][1]
            assert columns.min() >= low - 3 and columns.max() <= high + 3


DAMAGED = [s for s in dataset.samples() if s.defect != "good"]
KINDS = sorted({(s.category, s.defect) for s in DAMAGED})


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_masks_mark_what_differs_from_the_sound_image(kind):
    # A hole or a missing piece also moves the faint shadow on the table, which no mask holds.
    leak = 22 if kind[1] in ("broken_rim", "misplaced_hole") else 15
    for sample in (s for s in DAMAGED if (s.category, s.defect) == kind):
        image, mask = dataset.draw_sample(sample)
        sound, empty = dataset.draw_sample(sample, sound=True)
        change = np.abs(image.astype(int) - sound).max(axis=-1)
        inside = mask == 1
        assert not empty.any()
        assert 100 <= inside.sum() <= 0.04 * mask.size
        assert change[~inside].max() <= leak
        assert (change[inside] > 2).mean() > 0.6
        assert change[inside].max() > 30  # a person can see it
        rows, columns = np.nonzero(inside)
        assert 15 <= max(np.ptp(rows), np.ptp(columns)) <= 110


def test_good_images_have_empty_masks_and_differ():
    goods = [dataset.Sample("flange", "train", "good", i) for i in range(3)]
    drawn = [dataset.draw_sample(s) for s in goods]
    assert not any(mask.any() for _, mask in drawn)
    assert np.abs(drawn[0][0].astype(int) - drawn[1][0]).mean() > 3


def test_a_complete_set_is_left_alone(tmp_path, few, monkeypatch):
    dataset.write_demo(tmp_path / "d")
    monkeypatch.setattr(dataset, "_write", lambda *_: pytest.fail("drawn again"))
    dataset.write_demo(tmp_path / "d")


def test_a_killed_run_leaves_nothing_and_the_next_completes(tmp_path, few, monkeypatch):
    with monkeypatch.context() as patch:
        original = dataset._write

        def dying(root, sample, seed):
            if sample.category == "gravel":
                raise KeyboardInterrupt
            original(root, sample, seed)

        patch.setattr(dataset, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            dataset.write_demo(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
    dataset.write_demo(tmp_path / "d")
    assert dataset._is_complete(tmp_path / "d", (tmp_path / "d" / dataset.MARKER).read_text())


def test_a_set_with_a_file_missing_is_rewritten(tmp_path, few):
    root = tmp_path / "d"
    dataset.write_demo(root)
    before = contents(root)
    (root / "brick/test/good/000.png").unlink()
    (root / dataset.MARKER).unlink()
    dataset.write_demo(root)
    assert contents(root) == before


def test_leftovers_of_a_dead_process_go(tmp_path, few):
    alive = dataset._partial_folder(tmp_path / "d")
    dead = alive.with_name(alive.name.rpartition("-")[0] + "-99999999")
    dead.mkdir()
    dataset.write_demo(tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_foreign_files_are_never_removed(tmp_path, few, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        dataset.write_demo(tmp_path)
    assert draw_demo.main([str(tmp_path)]) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_as_root_and_a_negative_seed_are_refused(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="is a file"):
        dataset.write_demo(tmp_path / "f")
    with pytest.raises(UserError, match="negative"):
        dataset.write_demo(tmp_path / "g", seed=-1)
    with pytest.raises(UserError, match="cannot write"):
        dataset.write_demo(tmp_path / "f" / "below")
