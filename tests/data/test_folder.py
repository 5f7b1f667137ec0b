"""A user's own images: a tree, folders of any name, or a table."""

import pytest
from trees import short, write_files

from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.data.sources import folder
from stlm_jax.data.sources.registry import open_source
from stlm_jax.runtime.errors import UserError

TREE = """
    train/good/a.jpg
    train/good/b.png
    test/good/c.png
    test/dent/d.png
    test/dent/e.png
    test/rust/f.png
    ground_truth/dent/d_mask.png
    ground_truth/dent/e.bmp
"""


def config(**keys):
    c = default()
    c.data.source, c.data.categories = "folder", ("all",)
    c.data.update(keys)
    return c


def read(c, root):
    """The categories, and the short records of the first."""
    dataset.prepare(c)
    listing = open_source(c).scan(c.data.categories[0])
    return c.data.categories, [short(record, root) for record in listing.records]


# --- a tree ---


@pytest.mark.parametrize("place", ["", "bolt"])
def test_one_part_or_several(tmp_path, place):
    root = write_files(tmp_path / "parts" / place, TREE)
    names, records = read(config(root=str(tmp_path / "parts")), root)
    assert names == (place or "parts",)
    assert records == [
        ("train", "good", 0, "train/good/a.jpg", ""),
        ("train", "good", 0, "train/good/b.png", ""),
        ("test", "dent", 1, "test/dent/d.png", "ground_truth/dent/d_mask.png"),
        ("test", "dent", 1, "test/dent/e.png", "ground_truth/dent/e.bmp"),
        ("test", "good", 0, "test/good/c.png", ""),
        ("test", "rust", 1, "test/rust/f.png", ""),
    ]
    assert folder.scan(tmp_path / "parts", names[0]).records


def test_good_images_alone_are_enough(tmp_path):
    write_files(tmp_path, "bolt/train/good/a.png\nnut/train/good/a.png")
    c = config(root=str(tmp_path))
    names, records = read(c, tmp_path)
    assert names == ("bolt", "nut")
    assert records == [("train", "good", 0, "bolt/train/good/a.png", "")]
    assert dataset.split_of(c, "nut", "test") == []


# --- folders of any name ---

FOLDERS = """
    fine/a.png
    more/b.png
    broken/c.png
    broken/bent/d.png
    marks/c.png
    marks/bent/d_mask.png
    marks/old.png
"""


def test_folders_of_any_name(tmp_path):
    write_files(tmp_path, FOLDERS)
    c = config(
        train_dir=str(tmp_path / "fine"),
        test_good_dir=str(tmp_path / "more"),
        test_defect_dir=str(tmp_path / "broken"),
        mask_dir=str(tmp_path / "marks"),
        categories=("hinge",),
    )
    assert read(c, tmp_path) == (
        ("hinge",),
        [
            ("train", "good", 0, "fine/a.png", ""),
            ("test", "good", 0, "more/b.png", ""),
            ("test", "defect", 1, "broken/c.png", "marks/c.png"),
            ("test", "bent", 1, "broken/bent/d.png", "marks/bent/d_mask.png"),
        ],
    )
    strays = open_source(c).scan("hinge").stray_masks
    assert strays == [tmp_path / "marks/old.png"]


@pytest.mark.parametrize("good", ["", "test/good"])
def test_good_images_among_the_defects_stay_good(tmp_path, good):
    write_files(tmp_path, TREE)
    c = config(
        train_dir=str(tmp_path / "train/good"),
        test_good_dir=str(tmp_path / good) if good else "",
        test_defect_dir=str(tmp_path / "test"),
        mask_dir=str(tmp_path / "ground_truth"),
    )
    records = sorted(read(c, tmp_path)[1])
    assert [record[2:] for record in records if record[1] == "good"] == [
        (0, "test/good/c.png", ""),
        (0, "train/good/a.jpg", ""),
        (0, "train/good/b.png", ""),
    ]
    assert len(records) == 6


def test_only_the_training_folder_is_needed(tmp_path):
    write_files(tmp_path, FOLDERS)
    names, records = read(config(train_dir=str(tmp_path / "fine")), tmp_path)
    assert names == ("part",) and len(records) == 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, r"config\.data\.root is empty: give the folder"),
        ({"mask_dir": "marks"}, r"config\.data\.train_dir is empty: give the folder of good"),
        ({"train_dir": "fina"}, r"config\.data\.train_dir: .*fina is not a folder"),
        ({"train_dir": "fine", "mask_dir": "masks"}, r"data\.mask_dir: .*masks is not a folder"),
        ({"train_dir": "fine", "csv": "a.csv"}, r"data\.csv and config\.data\.train_dir are both"),
        ({"csv": "a.csv"}, r"a\.csv does not exist: check the path"),
    ],
)
def test_wrong_folders_are_one_clear_line(tmp_path, keys, said):
    write_files(tmp_path, FOLDERS)
    with pytest.raises(UserError, match=said) as error:
        dataset.prepare(config(**{key: str(tmp_path / name) for key, name in keys.items()}))
    assert "\n" not in str(error.value)


# --- a table ---

TABLE = """image,split,label,mask,defect,category
x/a.png,train,,,,
x/b.png,train,good,,,
x/c.png,train,bad,,,
x/d.png,validation,,,,
x/k.png,validation,1,,dent,
"x/e,1.png",test,0,,,
x/f.png,TEST,1,,crack,

x/g.png,test,,m/g.png,,
x/h.png,test,,,good,
x/i.png,train,,,,other
"""


def table(tmp_path, text):
    (tmp_path / "images.csv").write_text(text, encoding="utf-8-sig")
    return str(tmp_path / "images.csv")


def test_a_table_names_every_image(tmp_path):
    c = config(csv=table(tmp_path, TABLE))
    assert read(c, tmp_path) == (
        ("part", "other"),
        [
            ("train", "good", 0, "x/a.png", ""),
            ("train", "good", 0, "x/b.png", ""),
            ("unused", "defect", 1, "x/c.png", ""),
            ("validation", "good", 0, "x/d.png", ""),
            ("validation", "dent", 1, "x/k.png", ""),
            ("test", "good", 0, "x/e,1.png", ""),
            ("test", "crack", 1, "x/f.png", ""),
            ("test", "defect", 1, "x/g.png", "m/g.png"),
            ("test", "good", 0, "x/h.png", ""),
        ],
    )


def test_a_table_may_be_apart_from_its_images(tmp_path):
    c = config(csv=table(tmp_path, "split,IMAGE\ntrain,a.png\n"), root=str(tmp_path / "else"))
    assert read(c, tmp_path)[1] == [("train", "good", 0, "else/a.png", "")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"must name the columns image, split; it names none"),
        ("image,label\na.png,0\n", r"must name the column split; it names image, label"),
        ("image,split\n", r"names no image: add a line for each"),
        ("image,split\na.png,fit\n", r"line 2: split is 'fit': must be train, validation, test"),
        ("image,split\n,train\n", r"line 2: image is empty"),
        ("image,split,label\n\na.png,test,2\n", r"line 3: label is '2': must be 0, good"),
        ("image,split\na.png,test\n", r"line 2: an image to test needs a label, a defect or"),
        ("image,split\na.png,train,x\n", r"line 2 has 3 values for 2 columns"),
        ('image,split\n"a.png,train\n', r"cannot read .*images\.csv as a table"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path, text, said):
    c = config(csv=table(tmp_path, text))
    with pytest.raises(UserError, match=said) as error:
        dataset.prepare(c)
        open_source(c).scan("part")
    assert "\n" not in str(error.value) and "images.csv" in str(error.value)
