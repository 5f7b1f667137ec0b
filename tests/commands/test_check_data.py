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


def copy_as_bmp(path, target):
    with Image.open(path) as image:
        image.save(target)


def test_the_table_of_a_sound_set(root, capsys):
    write_image(root / "nut/test/cut/002.png", np.zeros((40, 30, 3), np.uint8))
    write_image(root / "nut/ground_truth/cut/002_mask.png", np.full((40, 30), 255, np.uint8))
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
                  r"warning: mask size: .*cut/000_mask\.png is 10x12, its image 12x10"),
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
    assert re.fullmatch(r"warning: .*cut/001\.png has no mask .*_mask\.png\)", lines[0])
    assert re.fullmatch(
        r"warning: .*7_mask\.png belongs to no image \(and 1 more; python -m .*\)", lines[1]
    )


def test_no_image_is_opened_at_the_start(root, monkeypatch):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    settings = parse(arguments(root))
    dataset.prepare(settings.config)
    dataset.check(settings.config)
    with pytest.raises(UserError, match="fewer than"):
        settings.config.train.batch_size = 4
        dataset.check(settings.config)


def test_rotation_is_configured_by_category():
    file = REPOSITORY / "configs/mvtec.py"
    config = parse(["main", f"--config={file}", "--config.data.rotation.screw=small"]).config
    rotation = config.data.rotation
    assert set(rotation) == {*config.data.categories, "default"}
    assert (rotation.screw, rotation.grid, rotation.transistor) == ("small", "right_angles", "none")
    with pytest.raises(UserError, match=r"rotation\.screw=upside: must be one of none, small, r"):
        parse(["main", f"--config={file}", "--config.data.rotation.screw=upside"])
