"""No two images ever share a folder of results, whatever they are called."""

import os
import pathlib
import shutil
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from stand_in import by_path, grey, predict, rows_of

from stlm_jax.prediction.naming import folder_of, folds_case

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the names")
_SPECIAL = (
    "a.png", "A.png", "a.PNG", "map.png", "Map.png", "overlay.png", "predictions.jsonl", "@", "@=",
    "@root", "@gs", "@2=a.png", "@=a.png", "..", "x" * 255, "x" * 254 + "y", "@" + "x" * 254,
    "é", "e\u0301", "ß", "ss", "\udcff", "a b", "two\nlines", "ü" * 127, "Ü" * 127, "tmp", "root",
)  # fmt: skip
_PART = st.sampled_from(_SPECIAL) | st.text(
    st.characters(exclude_characters="/\0", max_codepoint=0x24F, exclude_categories=["Cs"]),
    min_size=1, max_size=12,
)  # fmt: skip
_LOCATION = st.lists(_PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
_IMAGE = st.tuples(_LOCATION, st.integers(0, 3))
_BASES = st.sampled_from(["/", "/a.png", "/@root", "/tmp", "/x/y"])


@hypothesis.example("/", ("/@2=a.png", 0), ("/a.png", 1), False)
@hypothesis.example("/", ("/@=a.png", 1), ("/@2=@=a.png", 0), False)
@hypothesis.example("/x", ("/x/@root/a.png", 0), ("/a.png", 0), False)
@hypothesis.example("/x", ("/x/a.png", 0), ("/x/a.png/map.png", 0), False)
@hypothesis.example("/x", ("/x/predictions.json/a.png", 0), ("/x/map.png", 0), False)
@hypothesis.example("/x", ("/x/A.png", 0), ("/x/a.png", 0), True)
@hypothesis.example("/x", ("/x/" + "x" * 255, 0), ("/x/" + "x" * 254 + "y", 0), False)
@hypothesis.given(_BASES, _IMAGE, _IMAGE, st.booleans())
@hypothesis.settings(max_examples=1000, deadline=None)
def test_folders_are_of_one_image_each(base, one, other, folds):
    folders = [folder_of(location, base, number, folds) for location, number in (one, other)]
    parts = [folder.split("/") for folder in folders]
    for part in (part for its in parts for part in its):
        assert part not in ("", ".", "..") and len(os.fsencode(part)) <= 255
    if one == other:
        assert folders[0] == folders[1]
        return
    if folds:  # as a file system does, by Python's own tables
        assert folders[0].casefold() != folders[1].casefold()
    assert folders[0] != folders[1]
    # No folder of an image is a file of another's results, or of the output.
    for name in ("map.png", "overlay.png", "map.tiff", "map.npy"):
        assert f"{folders[0]}/{name}" not in (folders[1], *above(folders[1]))
    assert not {"predictions.json", "predictions.jsonl"} & set(above(folders[0]))


def above(folder):
    return [folder, *map(str, pathlib.PurePosixPath(folder).parents)]


def test_ordinary_names_are_kept():
    assert folder_of("/data/in/x/a b.png", "/data/in") == "x/a b.png"
    assert folder_of("/other/a.png", "/data/in") == "@root/other/a.png"
    assert folder_of("/data/inner/a.png", "/data/in") == "@root/data/inner/a.png"
    assert folder_of("gs://bucket/a.png", "/data/in") == "@gs/bucket/a.png"
    assert folder_of("gs://bucket/x/a.png", "gs://bucket/x") == "a.png"
    assert folder_of("/data/in/a.png", "/data/in", 1) == "@2=a.png"


def test_a_file_system_is_asked_whether_it_folds_case(tmp_path, monkeypatch):
    assert folds_case(tmp_path) == (tmp_path / str(tmp_path.name).upper()).exists()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(pathlib.Path, "exists", lambda path: True)
    assert folds_case(tmp_path)


@LINUX
def test_images_of_several_places_do_not_meet(model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = [
        "x/a.png", "x/a.jpg", "x/A.png", "y/a.png", "y/a.png.d/map.png", "here/a.png",
        "here/@root/a.png", "here/two\nlines.png", "here/\udcff.png", "here/" + "ü" * 125 + ".png",
        "here/" + "x" * 251 + ".png", "here/" + "x" * 250 + ".png", "x/y/a.png",
    ]  # fmt: skip
    values = {name: 20 + 10 * index for index, name in enumerate(names)}
    for name, value in values.items():
        grey(tmp_path / "one.png", value)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "one.png", tmp_path / name)
    inputs = [tmp_path / "x", "../y", ".", "../x/y/a.png"]
    options = ["--recursive", f"--output={tmp_path / 'out'}", "--maps=npy"]
    assert predict(model, *inputs, *options) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len(names) == len({row["path"] for row in rows})
    found = [np.load(path).mean() * 255 for path in (tmp_path / "out").rglob("map.npy")]
    assert sorted(found) == pytest.approx(sorted(values.values()))
    assert by_path(tmp_path / "out", tmp_path)["x/a.jpg"]["map"] == "x/a.jpg/map.npy"


def test_an_output_keeps_the_names_that_it_began_with(model, tmp_path):
    for name in ("x/a.png", "y/a.png"):
        grey(tmp_path / name, 20)
    options = [f"--output={tmp_path / 'out'}", "--maps=npy"]
    assert predict(model, tmp_path / "x", *options) == 0
    assert predict(model, tmp_path / "y", *options) == 0
    assert predict(model, tmp_path / "x", tmp_path / "y", *options) == 0
    rows = by_path(tmp_path / "out", tmp_path)
    assert rows["x/a.png"]["map"] == "a.png/map.npy"
    assert rows["y/a.png"]["map"] == f"@root{tmp_path}/y/a.png/map.npy"


def test_a_file_that_was_written_over_is_another_image(model, tmp_path):
    options = [tmp_path / "in", f"--output={tmp_path / 'out'}", "--maps=npy"]
    for value in (20, 200):
        grey(tmp_path / "in/a.png", value)
        os.utime(tmp_path / "in/a.png", ns=(value, value))
        assert predict(model, *options) == 0
    first, second = rows_of(tmp_path / "out")
    assert (first["map"], second["map"]) == ("a.png/map.npy", "@2=a.png/map.npy")
    for row, value in ((first, 20), (second, 200)):
        assert np.load(tmp_path / "out" / row["map"]).mean() * 255 == pytest.approx(value)
