"""The reader of MVTec AD's layout: order, labels, and what it says when something is missing."""

import pytest
from PIL import Image

from stlm_jax.data import mvtec_ad
from stlm_jax.errors import UserError

FILES = (
    "train/good/001.png",
    "train/good/000.png",
    "test/good/000.png",
    "test/cut/001.png",
    "test/cut/000.png",
    "test/bend/000.png",
    "ground_truth/cut/000_mask.png",
    "ground_truth/cut/001_mask.png",
    "ground_truth/bend/000_mask.png",
)


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        path = tmp_path / "nut" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return tmp_path


def test_records_are_sorted_and_labelled(root):
    base = root / "nut"
    got = [
        (
            r.split,
            r.defect,
            r.label,
            r.image.relative_to(base).as_posix(),
            r.mask and r.mask.relative_to(base).as_posix(),
        )
        for r in mvtec_ad.read_category(root, "nut")
    ]
    assert got == [
        ("train", "good", 0, "train/good/000.png", None),
        ("train", "good", 0, "train/good/001.png", None),
        ("test", "bend", 1, "test/bend/000.png", "ground_truth/bend/000_mask.png"),
        ("test", "cut", 1, "test/cut/000.png", "ground_truth/cut/000_mask.png"),
        ("test", "cut", 1, "test/cut/001.png", "ground_truth/cut/001_mask.png"),
        ("test", "good", 0, "test/good/000.png", None),
    ]
    assert {r.category for r in mvtec_ad.read_category(str(root), "nut")} == {"nut"}


def test_other_files_and_hidden_ones_do_not_count(root):
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "nut/train/good" / name).write_bytes(b"")
    (root / "nut/test/.cache").mkdir()
    (root / "nut/license.txt").write_text("")
    (root / "license.txt").write_text("")
    (root / "empty").mkdir()
    assert len(mvtec_ad.read_category(root, "nut")) == 6
    assert mvtec_ad.find_categories(root) == ["nut"]


def test_a_missing_or_empty_root_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root: .*nowhere is not a folder"):
        mvtec_ad.find_categories(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no <category>/train/good"):
        mvtec_ad.find_categories(tmp_path)


def test_an_unknown_category_is_told_what_there_is(root):
    with pytest.raises(UserError, match="'bolt' is not in .* which holds nut"):
        mvtec_ad.read_category(root, "bolt")


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        (("train/good/000.png", "train/good/001.png"), "train/good holds no image"),
        (("test/cut/000.png", "test/cut/001.png"), "test/cut holds no image"),
        (("ground_truth/cut/001_mask.png",), "001_mask.png is missing.*test/cut/001.png"),
    ],
)
def test_missing_files_are_named(root, removed, named):
    for name in removed:
        (root / "nut" / name).unlink()
    with pytest.raises(UserError, match=named):
        mvtec_ad.read_category(root, "nut")


def test_a_missing_test_folder_is_named(root):
    (root / "nut/test").rename(root / "gone")
    with pytest.raises(UserError, match="nut/test is missing"):
        mvtec_ad.read_category(root, "nut")
    (root / "nut/test").mkdir()
    with pytest.raises(UserError, match="nut/test holds no folder"):
        mvtec_ad.read_category(root, "nut")
