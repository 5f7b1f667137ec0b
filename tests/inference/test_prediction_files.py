"""What prediction reads and what it writes where, by the command line; the model sees colours."""

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest
from colour_model import ColourPredictor
from PIL import Image

from stlm_jax.drawing.colours import ABOVE_THRESHOLD, Scale, draw_overlay
from stlm_jax.inference import calibration
from stlm_jax.inference.inputs import check_output, find_inputs
from stlm_jax.main import main
from stlm_jax.weights.description import Calibration

THRESHOLD, PIXEL_THRESHOLD = 0.3, 0.25


class Seeing(ColourPredictor):
    made = 0

    def __init__(self, config):
        super().__init__(config)
        Seeing.made += 1

    def load(self, folder):
        return 6  # the newest checkpoint, which the calibration below is of


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicting") / "run"
    shutil.copytree(finished_run / "run", folder)
    calibration.store(folder / "disc", Calibration(THRESHOLD, 0.1, PIXEL_THRESHOLD, "held_out", 8))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("stlm_jax.inference.predict.Predictor", Seeing)


def predict(run, source, output, *options):
    given = [f"--config.predict.input={source}", "--config.data.categories=disc"]
    given += [f"--config.predict.output={output}"] if output else []
    return main(["main", f"--workdir={run}", "--mode=predict", *given, *options])


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), (value,) * 3).save(path)


def rows_of(output):
    with open(output / "scores.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    listing = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    assert [row["image"] for row in table] == [row["image"] for row in listing]
    return listing


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(capsys, status):
    assert status == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


MEETING = {
    "a.png": 20, "a.bmp": 90, "a_png.png": 160, "part.1.png": 40, "part.1.bmp": 80,
    "part_1.png": 120, "part_1.bmp": 200, "a/000.png": 30, "b/000.png": 130, "b/a/000.png": 50,
    "a_map.png": 60, "a.png.png": 70, "b/000.bmp": 150, "A.PNG": 10,
}  # fmt: skip


def test_outputs_mirror_the_inputs_and_no_two_share_a_name(run, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    for name, value in MEETING.items():
        grey(source / name, value)
    grey(source / ".hidden/000.png", 1)
    assert predict(run, source, output) == 0
    expected = {f"{name}.{kind}.png" for name in MEETING for kind in ("map", "overlay")}
    assert files_of(output).keys() == expected | {"scores.csv", "scores.json"}
    for name, value in MEETING.items():
        with Image.open(output / f"{name}.map.png") as map_:
            assert np.asarray(map_).mean() / 65535 == pytest.approx(value / 255, abs=1e-4)
    rows = {row["image"]: row for row in rows_of(output)}
    assert rows.keys() == {str(source / name) for name in MEETING}
    for name, value in MEETING.items():
        row = rows[str(source / name)]
        assert row["map"] == str(output / f"{name}.map.png")
        assert row["score"] == pytest.approx(value / 255, abs=1e-5)


def test_one_image_and_the_default_folder(run, tmp_path):
    grey(tmp_path / "a.png", 20)
    assert predict(run, tmp_path / "a.png", "") == 0
    default = run / "results/predict/disc"
    assert {"a.png.map.png", "a.png.overlay.png"} <= files_of(default).keys()


def test_a_second_run_writes_over_nothing_unless_asked(run, tmp_path, capsys):
    first, second, output = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    grey(first / "000.png", 20)
    grey(second / "000.png", 200)
    grey(tmp_path / "c/111.png", 200)
    assert predict(run, first, output) == 0
    before, made = files_of(output), Seeing.made
    for source in (first, second, tmp_path / "c"):
        line = refusal(capsys, predict(run, source, output))
        assert f"{output}/scores.csv is there" in line and "--config.predict.overwrite=True" in line
    (output / "scores.csv").unlink()
    (output / "scores.json").unlink()  # as a first run that was stopped leaves it
    assert "000.png.map.png is there" in refusal(capsys, predict(run, second, output))
    assert Seeing.made == made  # before any work
    del before["scores.csv"], before["scores.json"]
    assert files_of(output) == before
    assert predict(run, second, output, "--config.predict.overwrite=True") == 0
    (row,) = rows_of(output)
    assert row["image"] == str(second / "000.png")
    assert files_of(output)["000.png.map.png"] != before["000.png.map.png"]


def test_the_output_is_no_input_of_the_next_time(run, tmp_path, capsys):
    grey(tmp_path / "x/000.png", 20)
    inside = tmp_path / "out"
    assert predict(run, tmp_path, inside) == 0
    assert predict(run, tmp_path, inside, "--config.predict.overwrite=True") == 0
    assert [row["image"] for row in rows_of(inside)] == [str(tmp_path / "x/000.png")]
    line = refusal(capsys, predict(run, tmp_path / "x", tmp_path / "x"))
    assert "is the folder of the images" in line
    line = refusal(capsys, predict(run, tmp_path / "x", tmp_path / "x/000.png"))
    assert "is a file; give a folder" in line


def test_what_is_not_read_is_named(run, tmp_path, capsys):
    source = tmp_path / "in"
    grey(source / "folder.png/000.png", 20)
    grey(source / "sub/001.png", 20)
    (source / "photo.heic").write_bytes(b"x")
    (source / "broken.png").symlink_to("nowhere.png")
    os.mkfifo(source / "pipe.png")
    (source / "sub/above").symlink_to(source)
    (source / "again").symlink_to(source / "sub")
    assert predict(run, source, tmp_path / "out") == 0
    printed = capsys.readouterr().err
    assert "warning: " in printed and "3 of 6 files are no images" in printed
    assert "broken.png, photo.heic, pipe.png" in printed and "sub/above: is a link" in printed
    names = sorted(row["map"].removeprefix(f"{tmp_path}/out/") for row in rows_of(tmp_path / "out"))
    assert names == [f"{n}.map.png" for n in ("again/001.png", "folder.png/000.png", "sub/001.png")]


def test_a_folder_called_as_a_picture_is_refused(run, tmp_path, capsys):
    grey(tmp_path / "in/a.png", 20)
    grey(tmp_path / "in/a.png.map.png/b.png", 20)
    line = refusal(capsys, predict(run, tmp_path / "in", tmp_path / "out"))
    assert "its folder a.png.map.png has the name of a file" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    sys.platform != "linux", reason="file systems of other systems refuse the names"
)
def test_a_file_where_a_folder_is_to_be_is_refused_first(run, tmp_path, capsys):
    grey(tmp_path / "in/a/b.png", 20)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").touch()
    made = Seeing.made
    line = refusal(capsys, predict(run, tmp_path / "in", tmp_path / "out"))
    assert "out/a is a file" in line and Seeing.made == made


@pytest.mark.skipif(
    sys.platform != "linux", reason="file systems of other systems refuse the names"
)
def test_any_name_of_a_file_survives(run, tmp_path, capfd):
    source = os.fsencode(tmp_path / "in")
    names = [b"\xff\xfe.png", b"two\nlines.png", "größe.png".encode(), b"x" * 250 + b".png"]
    names += [b"x" * 251 + b".png", "ü".encode() * 125 + b".png"]
    os.mkdir(source)
    grey(tmp_path / "one.png", 20)
    for name in names:
        shutil.copy(tmp_path / "one.png", os.path.join(source, name))
    assert predict(run, tmp_path / "in", tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len(names) and len({row["map"] for row in rows}) == len(names)
    assert len(list((tmp_path / "out").glob("*.map.png"))) == len(names)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(names) and any("two\\nlines.png" in line for line in lines)
    assert any(r"\udcff\udcfe.png" in line for line in lines)


def test_every_score_is_printed_with_its_verdict(run, tmp_path, capsys):
    grey(tmp_path / "in/bad.png", 200)
    grey(tmp_path / "in/good.png", 20)
    assert predict(run, tmp_path / "in", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{200 / 255:.4f}  defective  {tmp_path}/in/bad.png",
        f"{20 / 255:.4f}  good       {tmp_path}/in/good.png",
    ]
    assert "1 of 2 images are defective: score above 0.3" in printed.err
    assert predict(run, tmp_path / "in", tmp_path / "tiles", "--config.predict.tile=40") == 0
    assert "defective" not in capsys.readouterr().out
    (run / "disc/calibration.json").rename(run / "away")
    try:
        assert predict(run, tmp_path / "in", tmp_path / "unknown") == 0
    finally:
        (run / "away").rename(run / "disc/calibration.json")
    assert capsys.readouterr().out.splitlines()[0] == f"{200 / 255:.4f}  {tmp_path}/in/bad.png"


@pytest.mark.parametrize("tile", [0, 64])
def test_the_overlay_has_the_report_s_scale_and_outline(run, tmp_path, tile):
    pixels = np.full((64, 64, 3), 30, np.uint8)
    pixels[20:40, 20:40] = 80  # a map of 0.31: faint on a scale of 0..1
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    assert predict(run, tmp_path / "in", tmp_path / "out", f"--config.predict.tile={tile}") == 0
    with Image.open(tmp_path / "out/a.png.overlay.png") as overlay:
        found = np.asarray(overlay)
    values = pixels[..., 0].astype(np.float32) / 255
    expected = draw_overlay(pixels, None, values, Scale.of(PIXEL_THRESHOLD))
    np.testing.assert_array_equal(found, expected)
    assert (found[20, 20:40] == ABOVE_THRESHOLD).all()


def test_a_stopped_prediction_says_how_to_begin_again(run, tmp_path, capsys, monkeypatch):
    for index in range(7):
        grey(tmp_path / f"in/{index}.png", 20)

    class Stopped(Seeing):
        def _batch(self, pixels):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super()._batch(pixels)

    monkeypatch.setattr("stlm_jax.inference.predict.Predictor", Stopped)
    assert predict(run, tmp_path / "in", tmp_path / "out") == 130
    assert "--config.predict.overwrite=True begins again" in capsys.readouterr().err
    left = files_of(tmp_path / "out")
    assert left and all(name.endswith((".map.png", ".overlay.png")) for name in left)
    monkeypatch.setattr("stlm_jax.inference.predict.Predictor", Seeing)
    assert predict(run, tmp_path / "in", tmp_path / "out", "--config.predict.overwrite=True") == 0
    assert len(rows_of(tmp_path / "out")) == 7


def test_naming_looks_at_every_name_once(tmp_path, monkeypatch):
    for index in range(300):
        (tmp_path / "in" / str(index % 7)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / str(index % 7) / f"{index}.png").touch()
    (tmp_path / "out").mkdir()
    asked = []
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(path))
    inputs = find_inputs(str(tmp_path / "in"), tmp_path / "out")
    check_output(tmp_path / "out", inputs, overwrite=False)
    assert len(inputs) == 300 and len(asked) == 2 * 300 + 2 + 8  # pictures, tables, folders
