"""The reader of MVTec AD's layout: order, labels, and what is missing."""

import pytest
from trees import short, write_files

from stlm_jax.data.sources.trees import MVTEC_AD
from stlm_jax.runtime.errors import UserError

FILES = """
    nut/train/good/001.png
    nut/train/good/000.png
    nut/test/good/000.png
    nut/test/cut/001.png
    nut/test/cut/000.png
    nut/test/bend/000.png
    nut/ground_truth/cut/000_mask.png
    nut/ground_truth/cut/001_mask.png
    nut/ground_truth/bend/000_mask.png
"""


@pytest.fixture
def root(tmp_path):
    return write_files(tmp_path, FILES)


def test_records_are_sorted_and_labelled(root):
    got = [short(record, root / "nut") for record in MVTEC_AD.scan(root, "nut").records]
    assert got == [
        ("train", "good", 0, "train/good/000.png", ""),
        ("train", "good", 0, "train/good/001.png", ""),
        ("test", "bend", 1, "test/bend/000.png", "ground_truth/bend/000_mask.png"),
        ("test", "cut", 1, "test/cut/000.png", "ground_truth/cut/000_mask.png"),
        ("test", "cut", 1, "test/cut/001.png", "ground_truth/cut/001_mask.png"),
        ("test", "good", 0, "test/good/000.png", ""),
    ]
    assert {r.category for r in MVTEC_AD.scan(str(root), "nut").records} == {"nut"}


def test_other_files_and_hidden_ones_do_not_count(root):
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "nut/train/good" / name).write_bytes(b"")
        (root / "nut/ground_truth/cut" / name).write_bytes(b"")
    (root / "nut/test/.cache").mkdir()
    (root / "nut/license.txt").write_text("")
    (root / "license.txt").write_text("")
    (root / "empty").mkdir()
    listing = MVTEC_AD.scan(root, "nut")
    assert len(listing.records) == 6 and not listing.stray_masks and not listing.empty
    assert MVTEC_AD.find_categories(root) == ["nut"]


def test_a_missing_or_empty_root_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root: .*nowhere is not a folder"):
        MVTEC_AD.find_categories(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no <category>/train/good"):
        MVTEC_AD.find_categories(tmp_path)


def test_an_unknown_category_is_told_what_there_is(root):
    with pytest.raises(UserError, match="'bolt' is not in .* which holds nut"):
        MVTEC_AD.scan(root, "bolt")


def test_a_mask_may_be_missing_and_another_stray(root):
    (root / "nut/ground_truth/cut/001_mask.png").rename(root / "nut/ground_truth/cut/002_mask.png")
    listing = MVTEC_AD.scan(root, "nut")
    unknown = [record for record in listing.records if not record.has_truth]
    assert [record.image.relative_to(root).as_posix() for record in unknown] == [
        "nut/test/cut/001.png"
    ]
    assert [path.name for path in listing.stray_masks] == ["002_mask.png"]


def test_empty_folders_are_told(root):
    for name in ("nut/train/good/000.png", "nut/train/good/001.png", "nut/test/bend/000.png"):
        (root / name).unlink()
    listing = MVTEC_AD.scan(root, "nut")
    assert listing.empty == [root / "nut/train/good", root / "nut/test/bend"]
    assert [path.name for path in listing.stray_masks] == ["000_mask.png"]


def test_without_a_test_folder_there_are_training_images_only(root):
    (root / "nut/test").rename(root / "gone")
    assert {record.split for record in MVTEC_AD.scan(root, "nut").records} == {"train"}
