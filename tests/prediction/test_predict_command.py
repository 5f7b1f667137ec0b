"""The command of a prediction: what it reads, what it writes, how it ends."""

import io
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import stand_in
from PIL import Image
from stand_in import KNOWN, by_path, grey, predict, red, refusing, rows_of

from stlm_jax.drawing.colours import Scale, draw_overlay


def refusal(capsys, status):
    assert status == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_help_needs_neither_jax_nor_numpy():
    code = """
import sys
from stlm_jax.commands.predict import main
try:
    main(["predict", "--help"])
except SystemExit as end:
    assert end.code == 0
assert not {"jax", "numpy", "scipy"} & set(sys.modules), sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--on_error" in ended.stdout and "--watch" in ended.stdout


def test_a_row_says_all(model, tmp_path, capsys):
    pixels = np.full((64, 64, 3), 30, np.uint8)
    pixels[20:24, 10:16] = 200
    pixels[24, 16] = 100  # touches at a corner
    pixels[50, 40:42] = 90
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/bad.png")
    grey(tmp_path / "in/good.png", 20, size=(64, 64))
    out = tmp_path / "out"
    assert predict(model, tmp_path / "in", f"--output={out}") == 0
    rows = by_path(out, tmp_path / "in")
    bad, good = rows["bad.png"], rows["good.png"]
    assert bad["score"] == pytest.approx(200 / 255) and bad["verdict"] == "defective"
    assert bad["normalised_score"] == pytest.approx(KNOWN.normalise(200 / 255))
    assert bad["regions"] == [
        {"box": [10, 20, 7, 5], "area": 25, "peak": pytest.approx(200 / 255)},
        {"box": [40, 50, 2, 1], "area": 2, "peak": pytest.approx(90 / 255)},
    ]
    assert (good["verdict"], good["regions"]) == ("good", [])
    assert good["normalised_score"] < 0.5 < bad["normalised_score"]
    assert (bad["width"], bad["height"]) == (64, 64) and bad["ms"] > 0
    assert not {"map", "overlay", "error"} & bad.keys()
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{200 / 255:.4f}  defective  {tmp_path}/in/bad.png",
        f"{20 / 255:.4f}  good       {tmp_path}/in/good.png",
    ]
    assert "2 judged, 1 of them defective" in printed.err
    about = json.loads((out / "predictions.json").read_text())
    assert about["description"]["threshold"] == KNOWN.threshold
    assert {p.name for p in out.iterdir()} == {"predictions.jsonl", "predictions.json"}
    few = tmp_path / "few"
    assert predict(model, tmp_path / "in", f"--output={few}", "--min_area=3", "--quiet") == 0
    assert [r["area"] for r in by_path(few, tmp_path / "in")["bad.png"]["regions"]] == [25]
    assert not capsys.readouterr().out


def test_without_thresholds_nothing_is_judged(model, tmp_path, monkeypatch, capsys):
    stand_in.use(monkeypatch.setattr, known=None)
    grey(tmp_path / "in/a.png", 200)
    assert predict(model, tmp_path / "in", f"--output={tmp_path / 'out'}") == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["score"] == pytest.approx(200 / 255)
    assert [row[k] for k in ("normalised_score", "verdict", "regions")] == [None] * 3
    assert "good" not in capsys.readouterr().out


def expected_map(pixels):
    """What the model says of an image, in the image's geometry, by PIL."""
    square = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR)
    small = Image.fromarray(np.asarray(square)[..., 0].astype(np.float32) / 255)
    return np.asarray(small.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("kind", ["png16", "tiff", "npy"])
def test_maps_and_overlays_have_the_geometry_of_the_image(model, tmp_path, kind):
    image = np.random.default_rng(0).integers(20, 250, (45, 100, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in/a.png")
    out = tmp_path / "out"
    assert predict(model, tmp_path / "in", f"--output={out}", f"--maps={kind}", "--overlays") == 0
    (row,) = rows_of(out)
    values = expected_map(image)
    path = out / row["map"]
    if kind == "npy":
        found = np.load(path)
    else:
        with Image.open(path) as file:
            assert file.mode == ("I;16" if kind == "png16" else "F")
            found = np.asarray(file)
    if kind == "png16":
        np.testing.assert_array_equal(found, np.rint(values * 65535).astype(np.uint16))
    else:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values)
    with Image.open(out / row["overlay"]) as file:
        drawn = draw_overlay(image, None, values, Scale.of(KNOWN.pixel_threshold))
        np.testing.assert_array_equal(np.asarray(file), drawn)
    regions = row["regions"]
    assert sum(r["area"] for r in regions) == (values > KNOWN.pixel_threshold).sum()


def test_every_kind_of_input(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.jpg", "[b].png", "sub/a.png", "sub/deep/c.png", "out/x.png"):
        grey(tmp_path / "in" / name, 20)
    (tmp_path / "in/note.txt").write_text("x")
    (tmp_path / "in/.hidden.png").write_text("x")

    def names(*arguments):
        status = predict(model, *arguments, "--output=in/out", "--overwrite", "--quiet")
        return status, sorted(by_path("in/out", tmp_path / "in"))

    assert names("in") == (0, ["[b].png", "a.jpg", "a.png"])
    assert "note.txt" in capsys.readouterr().err
    everything = ["[b].png", "a.jpg", "a.png", "sub/a.png", "sub/deep/c.png"]
    assert names("in", "--recursive") == (0, everything)
    assert names("in/*.png") == (0, ["[b].png", "a.png"])
    assert names("in/[b].png") == (0, ["[b].png"])  # it is there: no pattern
    assert names("in/**/*") == (0, everything)
    assert names("in/a.png", "in", "in/*.jpg") == (0, ["[b].png", "a.jpg", "a.png"])
    listed = f"in/a.jpg\n\n{tmp_path}/in/sub/a.png\r\nin/sub/../a.png\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert names("-") == (0, ["a.jpg", "a.png", "sub/a.png"])


def test_wrong_use_ends_with_2_before_any_work(model, tmp_path, capsys, monkeypatch):
    def no_model(*_):
        raise AssertionError("there was work")

    monkeypatch.setattr("stlm_jax.prediction.model.load", no_model)
    grey(tmp_path / "in/a.png", 20)
    (tmp_path / "empty").mkdir()
    out = f"--output={tmp_path / 'out'}"
    assert "no such file or folder" in refusal(capsys, predict(model, tmp_path / "none", out))
    assert "no file matches" in refusal(capsys, predict(model, tmp_path / "in/*.bmp", out))
    assert "there is no image" in refusal(capsys, predict(model, tmp_path / "empty", out))
    assert "MODEL" in refusal(capsys, predict(tmp_path / "x.onnx", tmp_path / "in", out))
    same = f"--output={tmp_path / 'in'}"
    assert "is the folder of the images" in refusal(capsys, predict(model, tmp_path / "in", same))
    file = f"--output={model}"
    assert "is a file" in refusal(capsys, predict(model, tmp_path / "in", file))
    category = "--category=disc"
    assert "--category=disc" in refusal(capsys, predict(model, tmp_path / "in", out, category))
    for wrong in (["--batch=0"], ["--min_area=x"], ["--maps=jpg"], ["--settle=1"], ["--done=x"]):
        with pytest.raises(SystemExit) as end:
            predict(model, tmp_path / "in", *wrong)
        assert end.value.code == 2
    assert not (tmp_path / "out").exists()


BAD = {
    "text.png": b"no image at all",
    "empty.png": b"",
    "tiff.tif": b"II*\x00",
}


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_bad_files_are_told_counted_and_left_out(model, tmp_path, capsys, batch):
    folder = tmp_path / "in"
    for index in range(5):
        grey(folder / f"{index}.png", 20 + index)
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    whole = (folder / "1.png").read_bytes()
    (folder / "2cut.png").write_bytes(whole[: len(whole) // 2])
    out, option = tmp_path / "out", f"--batch={batch}"
    again = [model, folder, folder / "2.png", f"--output={out}", option]
    assert predict(*again) == 1
    printed = capsys.readouterr().err
    bad = {*BAD, "2cut.png"}
    left_out = [line for line in printed.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 4 and all(any(name in line for name in bad) for line in left_out)
    assert "5 judged" in printed and "4 could not be judged" in printed
    rows = by_path(out, folder)
    assert {name for name, row in rows.items() if "error" in row} == bad
    assert all(name in rows[name]["error"] and "verdict" not in rows[name] for name in bad)
    assert [rows[f"{i}.png"]["score"] * 255 for i in range(5)] == pytest.approx(range(20, 25))
    assert predict(*again) == 1  # they are not forgotten
    assert "4 could not be judged" in capsys.readouterr().err
    (folder / "text.png").write_bytes(whole)  # mended, it is another file
    assert predict(*again) == 1
    assert len(rows_of(out)) == 10 and rows_of(out)[-1]["score"] * 255 == pytest.approx(21)


def test_a_listed_file_that_is_not_there_is_bad(model, tmp_path, monkeypatch):
    grey(tmp_path / "a.png", 20)
    listed = f"{tmp_path}/none.png\n{tmp_path}/a.png\n{tmp_path}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert predict(model, "-", f"--output={tmp_path / 'out'}") == 1
    first, second, third = rows_of(tmp_path / "out")
    assert "does not exist" in first["error"] and "error" in third and "score" in second


def test_rows_are_there_while_the_model_looks_at_the_next(model, tmp_path, monkeypatch):
    out, before = tmp_path / "out", []

    def counting(squares):
        before.append(len(rows_of(out)))
        return red(squares)

    stand_in.use(monkeypatch.setattr, counting)
    for value in range(20, 24):
        grey(tmp_path / f"in/{value}.png", value)
    assert predict(model, tmp_path / "in", f"--output={out}") == 0
    assert before[:2] == [0, 1] and max(before) <= 3 and len(rows_of(out)) == 4


def test_stop_ends_at_the_first_and_loses_nothing(model, tmp_path, capsys):
    for index in range(9):
        grey(tmp_path / f"in/{index}.png", 20)
    (tmp_path / "in/5.png").write_bytes(b"")
    out = tmp_path / "out"
    again = [model, tmp_path / "in", f"--output={out}", "--on_error=stop", "--batch=4"]
    for _ in range(2):
        assert "5.png" in refusal(capsys, predict(*again))
        assert list(by_path(out, tmp_path / "in")) == [f"{i}.png" for i in range(5)]
    grey(tmp_path / "in/5.png", 20)
    assert predict(*again) == 0 and len(rows_of(out)) == 9


@pytest.mark.parametrize("infer", [red, refusing])
@pytest.mark.parametrize("known", [KNOWN, None])
def test_what_is_not_finite_is_an_error_of_that_image(model, tmp_path, monkeypatch, infer, known):
    stand_in.use(monkeypatch.setattr, infer, known)
    for index, value in enumerate((20, 13, 200, 13, 30)):
        grey(tmp_path / f"in/{index}.png", value)
    out = tmp_path / "out"
    options = [f"--output={out}", "--batch=3", "--maps=tiff"]
    assert predict(model, tmp_path / "in", *options) == 1
    rows = by_path(out, tmp_path / "in")
    for index in (1, 3):
        assert "not finite" in rows[f"{index}.png"]["error"]
        assert f"{index}.png" in rows[f"{index}.png"]["error"]
        assert "verdict" not in rows[f"{index}.png"]
        assert not (out / f"{index}.png").exists()
    scores = [rows[f"{index}.png"]["score"] * 255 for index in (0, 2, 4)]
    assert scores == pytest.approx([20, 200, 30])


def test_infinite_scores_are_errors(model, tmp_path, monkeypatch):
    def infinite(squares):
        return {**red(squares), "score": np.full(len(squares), -np.inf, np.float32)}

    stand_in.use(monkeypatch.setattr, infinite)
    grey(tmp_path / "in/0.png", 20)
    assert predict(model, tmp_path / "in", f"--output={tmp_path / 'out'}") == 1
    assert "not finite" in rows_of(tmp_path / "out")[0]["error"]


class Counted:
    """A list of paths that is too long to be read as a whole."""

    def __init__(self, path, count, output):
        self.path, self.count, self.output, self.furthest = path, count, output, 0

    def __iter__(self):
        for index in range(self.count):
            path = self.path.with_name(f"{index}.png")
            os.link(self.path, path)
            yield f"{path}\n".encode()
            self.furthest = max(self.furthest, index - self._done())

    def _done(self):
        try:
            return (self.output / "predictions.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


@pytest.mark.parametrize("batch", [1, 4])
def test_no_more_is_read_ahead_than_a_few_batches(model, tmp_path, monkeypatch, batch):
    grey(tmp_path / "list/one.png", 20)
    listed = Counted(tmp_path / "list/one.png", 300, tmp_path / "out")
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": listed}))
    threads = threading.active_count()
    options = [f"--output={tmp_path / 'out'}", f"--batch={batch}", "--quiet"]
    assert predict(model, "-", *options) == 0
    assert len(rows_of(tmp_path / "out")) == 300
    assert 0 < listed.furthest <= 3 * batch + 12
    assert threading.active_count() == threads
