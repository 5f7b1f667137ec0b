"""The check of a data set: its table, every kind of problem, its exit status."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from trees import NUT, SIZE, write_files, write_image

from stlm_jax.commands import check_data
from stlm_jax.data import dataset
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
from stlm_jax.config import default


def get_config():
    c = default()
    c.data.source = {source!r}
    c.data.root = {root!r}
    c.data.categories = ("all",)
    c.teacher.checkpoint = "none"
    return c
"""


@pytest.fixture
def root(tmp_path):
    return write_files(tmp_path / "data", NUT)


def arguments(root, *options, source="mvtec_ad"):
    file = root.parent / "checked.py"
    file.write_text(CONFIG.format(root=str(root), source=source))
    return ["check", f"--config={file}", *options]


def cut(path):
    """Take away the end of a PNG file: the last chunk and a part of the pixels."""
    path.write_bytes(path.read_bytes()[:-24])


def turn(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def pages(path):
    images = [Image.new("L", (12, 10), value) for value in (1, 2, 3)]
    images[0].save(path, save_all=True, append_images=images[1:])


def copy_as_bmp(path, target):
    with Image.open(path) as image:
        image.save(target)


def test_the_table_of_a_sound_set(root, capsys):
    write_image(root / "nut/test/cut/002.png", np.zeros((40, 30, 3), np.uint8))
    mask = np.full((40, 30), 255, np.uint8)
    mask[:20] = 0
    write_image(root / "nut/ground_truth/cut/002_mask.png", mask)
    assert check_data.main(arguments(root)) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "| category | split | defect | images | masks |        sizes |  modes |\n"
        "| -------- | ----- | ------ | -----: | ----: | -----------: | -----: |\n"
        "| nut      | train | good   |      3 |       |        12x10 |      L |\n"
        "| nut      | test  | cut    |      3 |     3 | 12x10, 30x40 | L, RGB |\n"
        "| nut      | test  | good   |      1 |       |        12x10 |      L |\n"
        "no problem found\n"
    )
    assert re.search(r"check +7/7 ", printed.err)


CASES = {
    "no image": (lambda r: (r / "train/good/001.png").write_text("text"),
                 r"error: unreadable: cannot read .*train/good/001\.png"),
    "0 bytes": (lambda r: (r / "test/good/000.png").write_bytes(b""),
                r"error: unreadable: cannot read .*test/good/000\.png"),
    "half an image": (lambda r: cut(r / "train/good/002.png"),
                      r"error: truncated: cannot read .*train/good/002\.png"),
    "half a mask": (lambda r: cut(r / "ground_truth/cut/000_mask.png"),
                    r"error: truncated: cannot read .*cut/000_mask\.png"),
    "mask missing": (lambda r: (r / "ground_truth/cut/001_mask.png").unlink(),
                     r"warning: mask missing: .*cut/001\.png has no mask \(ground_truth/<defect>"),
    "mask extra": (lambda r: write_image(r / "ground_truth/cut/7_mask.png", np.ones(SIZE, "u1")),
                   r"warning: mask extra: .*cut/7_mask\.png belongs to no image"),
    "mask size": (lambda r: write_image(r / "ground_truth/cut/000_mask.png", np.ones(SIZE, "u1")),
                  r"error: mask size: .*cut/000_mask\.png is 10x12, its image 12x10, which is of "),
    "mask resized": (
        lambda r: write_image(r / "ground_truth/cut/000_mask.png", np.eye(20, 24, dtype="u1")),
        r"warning: mask size: .*cut/000_mask\.png is 24x20, its image 12x10: it is resized"),
    "mask turned": (
        lambda r: turn(r / "test/cut/000.png", 6),
        r"warning: mask size: .*cut/000_mask\.png is 12x10, its image 10x12: it is turned as EXIF"),
    "mask not turned": (
        lambda r: turn(r / "test/cut/000.png", 3),
        r"warning: mask size: .*cut/000_mask\.png is taken as drawn on the upright image"),
    "mask classes": (
        lambda r: write_files(r, "ground_truth/cut/000_mask.png = 0 0 0 0 0 0 0 60 60 60 0 255"),
        r"warning: mask not binary: .*more than two values: 60, 255 all count as defects; "
        r"config\.data\.mask=threshold"),
    "mask full": (lambda r: write_files(r, "ground_truth/cut/000_mask.png = 255"),
                  r"warning: mask full: .*cut/000_mask\.png marks every pixel"),
    "mask inverted": (lambda r: write_files(r, "ground_truth/cut/000_mask.png = 0 255 255 255"),
                      r"warning: mask large: .*cut/000_mask\.png marks 75% of its .*inverted"),
    "tiny image": (lambda r: write_image(r / "train/good/005.png", np.zeros((1, 1), "u1")),
                   r"warning: image size: .*good/005\.png is 1x1: too small to show a part"),
    "pages": (lambda r: pages(r / "train/good/005.tif"),
              r"warning: more frames: .*good/005\.tif holds 3 images, of which the first is read"),
    "sub-folder": (lambda r: write_files(r, "train/good/b/1.png\ntrain/good/b/2.png"),
                   r"warning: not read: .*train/good/b: 2 not read, no part of the layout "
                   r"\(1\.png, 2\.png\): move or remove them"),
    "phone's format": (lambda r: [(r / f"test/good/{n}.HEIC").write_bytes(b"x") for n in "ab"],
                       r"warning: not read: .*test/good: 2 not read, of a format that is not read "
                       r"\(a\.HEIC, b\.HEIC\): convert"),
    "broken link": (lambda r: (r / "train/good/9.png").symlink_to(r / "gone.png"),
                    r"warning: not read: .*train/good: 1 not read, broken links \(9\.png\)"),
    "folder named as an image": (
        lambda r: (r / "ground_truth/cut/9.png").mkdir(),
        r"warning: not read: .*ground_truth/cut: 1 not read, folders in spite of .*\(9\.png\)"),
    "fifo": (lambda r: os.mkfifo(r / "test/cut/9.png"),
             r"warning: not read: .*test/cut: 1 not read, no regular files \(9\.png\)"),
    "hidden image": (lambda r: write_files(r, "train/good/.9.png"),
                     r"warning: not read: .*train/good: 1 not read, hidden \(\.9\.png\)"),
    "no image's name": (lambda r: (r / "train/good/9.png.part").write_text("x"),
                        r"warning: not read: .*: 1 not read, without .* an image \(9\.png\.part"),
    "folder in another spelling": (
        lambda r: write_files(r, "Test/good/9.png"),
        r"warning: not read: .*/Test/good: 1 not read, no part of the layout \(9\.png\)"),
    "images beside the folders": (
        lambda r: write_files(r, "test/9.png"),
        r"warning: not read: .*/test: 1 not read, no part of the layout \(9\.png\)"),
    "mask not binary": (
        lambda r: write_files(r, "ground_truth/cut/000_mask.png = 0 128 255"),
        r"warning: mask not binary: .*cut/000_mask\.png holds more than two values"),
    "mask empty": (lambda r: write_files(r, "ground_truth/cut/000_mask.png = 0"),
                   r"warning: mask empty: .*cut/000_mask\.png marks no pixel"),
    "duplicate": (lambda r: copy_as_bmp(r / "train/good/001.png", r / "test/good/009.bmp"),
                  r"warning: duplicate: .*test/good/009\.bmp has the same pixels as "
                  r".*train/good/001\.png"),
    "empty category": (lambda r: [p.unlink() for p in (r / "train/good").iterdir()],
                       r"error: empty category: nut: there is no image to train on"),
    "few images": (lambda r: [p.unlink() for p in sorted((r / "train/good").iterdir())[1:]],
                   r"error: few images: nut: 1 training images are fewer than .*batch_size=2"),
    "no masks": (lambda r: (r / "ground_truth").rename(r / "gone"),
                 r"warning: no masks: nut: none of 2 images of cut has a mask"),
    "no test": (lambda r: (r / "test").rename(r / "gone"),
                r"warning: no test: nut: there is no image to test on"),
    "empty folder": (lambda r: (r / "test/bent").mkdir(),
                     r"warning: empty folder: .*test/bent holds no image"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_problem_is_found(root, capsys, name):
    damage, expected = CASES[name]
    damage(root / "nut")
    status = check_data.main(arguments(root))
    lines = capsys.readouterr().out.splitlines()
    assert sum(bool(re.fullmatch(expected + ".*", line)) for line in lines) == 1, lines
    fatal = expected.startswith("error")
    assert status == (1 if fatal else 0)
    ending = r"training would stop at 1 of them" if fatal else "training can run"
    assert re.fullmatch(rf"\d+ problems?; {ending}", lines[-1])


def test_all_problems_are_told_at_once(root, capsys):
    for name in ("half an image", "mask missing", "mask extra", "mask empty", "duplicate"):
        CASES[name][0](root / "nut")
    write_files(root, "bolt/train/good/000.png")
    assert check_data.main(arguments(root)) == 1
    printed = capsys.readouterr().out
    found = sorted(re.findall(r"^(?:error|warning): ([a-z ]+):", printed, re.MULTILINE))
    assert found == [
        "duplicate", "few images", "mask empty", "mask extra", "mask missing", "no test",
        "truncated",
    ]  # fmt: skip
    assert "7 problems; training would stop at 2 of them" in printed
    assert re.search(r"\| bolt +\| train", printed)


def test_pixels_decide_what_a_duplicate_is(root, capsys):
    """Another file with the same pixels counts, other pixels under the same name do not."""
    copy_as_bmp(root / "nut/test/good/000.png", root / "nut/test/good/001.bmp")
    copy_as_bmp(root / "nut/train/good/000.png", root / "nut/train/good/003.bmp")
    assert check_data.main(arguments(root)) == 0
    assert "no problem found" in capsys.readouterr().out


def test_damaged_images_that_are_skipped_are_no_failure(root, capsys):
    for name in ("001", "002"):
        (root / f"nut/train/good/{name}.png").write_text("text")
        argv = arguments(root)
        file = root.parent / "checked.py"
        skipping = file.read_text().replace(
            "    return c", '    c.data.on_error = "skip"\n    return c'
        )
        file.write_text(skipping)
        status = check_data.main(argv)
        printed = capsys.readouterr().out
        assert "warning: unreadable" in printed
        assert status == (0 if name == "001" else 1)
    assert "nut: 1 readable training images are fewer than config.train.batch_size=2" in printed


def test_masks_that_cannot_be_joined(tmp_path, capsys):
    root = write_files(tmp_path / "loco", """
        cup/train/good/000.png
        cup/train/good/001.png
        cup/validation/good/000.png
        cup/test/logical_anomalies/000.png
        cup/ground_truth/logical_anomalies/000/000.png = 0 255
    """)  # fmt: skip
    write_image(root / "cup/ground_truth/logical_anomalies/000/001.png", np.ones((3, 3), np.uint8))
    assert check_data.main(arguments(root, source="mvtec_loco")) == 1
    printed = capsys.readouterr().out
    assert re.search(r"error: mask size: the masks of .*000\.png differ in size", printed)
    assert re.search(r"\| cup +\| validation +\| good +\| +1 \|", printed)


def test_a_missing_folder_of_textures(root, capsys):
    textures = f"--config.data.texture_root={root}/dtd"
    assert check_data.main(arguments(root, textures)) == 1
    printed = capsys.readouterr().out
    assert re.search(r"error: textures: data\.texture_root: .*dtd is not a folder", printed)
    settings = parse(arguments(root, textures))
    with pytest.raises(UserError, match=r"dtd is not a folder"):
        dataset.check(settings.config)


def test_files_that_a_table_names_must_exist(tmp_path, capsys):
    write_files(tmp_path / "data", "a.png\nb.png\nd.png")
    lines = ["image,split,label,mask", "a.png,train,,", "b.png,train,,", "c.png,train,,"]
    (tmp_path / "data/t.csv").write_text("\n".join([*lines, "d.png,test,1,m.png"]))
    csv = f"--config.data.csv={tmp_path / 'data/t.csv'}"
    assert check_data.main(arguments(tmp_path / "data", csv, source="folder")) == 1
    printed = capsys.readouterr().out
    assert re.search(r"error: image missing: .*c\.png does not exist", printed)
    assert re.search(r"error: mask missing: .*m\.png does not exist: it is .* of .*d\.png", printed)


def test_wrong_arguments_and_places(root, capsys):
    assert check_data.main(["check"]) == 2
    assert check_data.main(arguments(root, "--config.data.sauce=visa")) == 2
    assert check_data.main(arguments(root, "--config.data.source=imagenet")) == 2
    assert check_data.main(arguments(root, "--config.data.csv=a.csv")) == 2
    assert check_data.main(arguments(root, f"--config.data.root={root}/none")) == 1
    assert check_data.main(arguments(root, "--config.data.categories=bolt")) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 6 and all(line.startswith("error: ") for line in lines)
    assert not printed.out
    for expected, line in zip(
        ("--config is missing", "no key 'sauce'", "source=imagenet: must be one of mvtec_ad, visa",
         "csv=a.csv: is read with --config.data.source=folder only", "none is not a folder",
         "has no 'bolt', it has nut"),
        lines,
        strict=True,
    ):  # fmt: skip
        assert expected in line


def test_it_runs_as_a_program(root):
    (root / "nut/train/good/000.png").write_bytes(b"")
    process = subprocess.run(
        [sys.executable, "-m", "stlm_jax.commands.check_data", *arguments(root)[1:]],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 1 and process.stdout.startswith("| category |")
    assert "Traceback" not in process.stderr


# --- the cheap part, at the start of training ---


def test_training_stops_before_anything_is_compiled(root, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("something was compiled or read")

    monkeypatch.setattr("stlm_jax.training.train.Trainer", refuse)
    monkeypatch.setattr("stlm_jax.training.train.build_stlm", refuse)
    CASES["empty category"][0](root / "nut")
    workdir = root.parent / "run"
    assert main(arguments(root, f"--workdir={workdir}")) == 2
    assert capsys.readouterr().err == "error: nut: there is no image to train on\n"
    assert not workdir.exists()


def test_what_training_need_not_stop_at_is_noted(root, capsys):
    for name in ("mask missing", "mask extra"):
        CASES[name][0](root / "nut")
    write_files(root / "nut/ground_truth/cut", "8_mask.png")
    settings = parse(arguments(root))
    dataset.prepare(settings.config)
    dataset.check(settings.config)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"warning: mask missing: .*cut/001\.png has no mask .*_mask\.png\)", lines[0]
    )
    assert re.fullmatch(
        r"warning: mask extra: .*7_mask\.png belongs to no image \(and 1 more; python -m .*\)",
        lines[1],
    )


def test_a_listing_that_a_run_would_stop_at_is_refused_before_images_are_read(root):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    settings = parse(arguments(root))
    dataset.prepare(settings.config)
    with pytest.raises(UserError, match="fewer than"):
        settings.config.train.batch_size = 4
        dataset.check(settings.config)


@pytest.mark.parametrize("name", CASES)
def test_training_says_at_its_start_what_the_check_says(root, monkeypatch, capsys, name):
    """Word for word, before anything is compiled; and stops where the check says that it would."""

    def begin(*_):
        raise UserError("training begins")

    monkeypatch.setattr("stlm_jax.training.train.Trainer", begin)
    damage, expected = CASES[name]
    damage(root / "nut")
    status = check_data.main(arguments(root))
    lines = capsys.readouterr().out.splitlines()
    assert main(arguments(root, f"--workdir={root.parent / 'run'}")) == 2
    *warnings, ending = capsys.readouterr().err.splitlines()
    if status:
        stop = next(line for line in lines if line.startswith("error: "))
        assert ending == f"error: {stop.split(': ', 2)[2]}"
        assert not (root.parent / "run").exists()
    else:
        checked = [line for line in lines if line.startswith("warning: ")]
        first = {line.split(": ")[1]: line for line in reversed(checked)}
        assert [line.split(": ")[1] for line in warnings if "not read" not in line] == [
            kind
            for kind in dict.fromkeys(line.split(": ")[1] for line in checked)
            if kind != "not read"
        ]
        for line in warnings:
            assert line in checked or line.startswith(first[line.split(": ")[1]] + " (and ")
        assert {line for line in checked if "not read: " in line} <= set(warnings)
        assert warnings and ending == "error: training begins"


def test_files_that_are_not_read_are_named_before_a_refusal(root, monkeypatch, capsys):
    for path in (root / "nut/train/good").iterdir():
        path.rename(path.with_suffix(".heic"))
    assert main(arguments(root, f"--workdir={root.parent / 'run'}")) == 2
    said, ending = capsys.readouterr().err.splitlines()
    assert re.search(r"good: 3 not read, of a format .*\(000\.heic, 001\.heic, 002\.heic\)", said)
    assert ending == "error: nut: there is no image to train on"


def test_held_out_images_are_looked_at_before_training(root, monkeypatch, capsys):
    settings = parse(arguments(root, "--config.calibration.held_out=0.3"))
    dataset.prepare(settings.config)
    (record,) = dataset.split_of(settings.config, "nut", "held_out")
    record.image.write_bytes(b"")
    monkeypatch.setattr("stlm_jax.training.train.build_stlm", lambda *_: 1 / 0)
    options = (f"--workdir={root.parent / 'run'}", "--config.calibration.held_out=0.3")
    assert main(arguments(root, *options)) == 2
    assert re.search(rf"^error: cannot read {record.image} ", capsys.readouterr().err, re.M)


def test_nothing_is_said_of_a_sound_set_and_of_what_lies_around_it(root, capsys):
    """Licences and tables beside the folders of images, systems' clutter, our own runs."""
    write_files(root, "nut/run/results/panels/a.png")
    for name in ("nut/license.txt", "nut/readme.md", "nut/train/good/Thumbs.db",
                 "nut/test/.DS_Store", "nut/test/good/._000.png", "nut/run/run.json"):  # fmt: skip
        (root / name).write_text("{}")
    assert check_data.main(arguments(root)) == 0
    assert "no problem found" in capsys.readouterr().out
    settings = parse(arguments(root))
    dataset.prepare(settings.config)
    dataset.check(settings.config)
    assert capsys.readouterr().err == ""


def test_a_folder_of_good_images_in_capital_letters_holds_good_images(root, capsys):
    (root / "nut/test/good").rename(root / "nut/test/Good")
    (root / "nut/train/good").rename(root / "nut/train/GOOD")
    assert check_data.main(arguments(root)) == 0
    printed = capsys.readouterr().out
    assert "no problem found" in printed
    assert re.search(r"\| nut +\| train +\| good +\| +3 \|", printed)
    assert re.search(r"\| nut +\| test +\| good +\| +1 \|", printed)


def test_rotation_is_configured_by_category():
    file = REPOSITORY / "configs/mvtec.py"
    config = parse(["main", f"--config={file}", "--config.data.rotation.screw=small"]).config
    rotation = config.data.rotation
    assert set(rotation) == {*config.data.categories, "default"}
    assert (rotation.screw, rotation.grid, rotation.transistor) == ("small", "right_angles", "none")
    with pytest.raises(UserError, match=r"rotation\.screw=upside: must be one of none, small, r"):
        parse(["main", f"--config={file}", "--config.data.rotation.screw=upside"])
