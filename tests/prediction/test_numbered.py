"""Numbered frames: their order, which are missing, a camera that writes them."""

import os
import pathlib

import pytest
from stand_in import count, grey, predict, rows_of, wait_for

from stlm_jax.prediction.numbered import Missing, Pattern

NUMBERS = (1, 2, 9, 10, 11, 100)


def names(output):
    return [pathlib.Path(row["path"]).name for row in rows_of(output)]


@pytest.fixture
def frames(tmp_path):
    """As an encoder writes them that pads nothing."""
    for number in NUMBERS:
        grey(tmp_path / f"in/frame_{number}.png", number)
    return tmp_path / "in"


@pytest.mark.parametrize("input_of", ["{}", "{}/*.png", "{}/frame_%d.png"])
def test_frames_go_in_the_order_of_their_numbers(model, frames, tmp_path, capsys, input_of):
    given = input_of.format(frames)
    assert predict(model, given, f"--output={tmp_path / 'out'}", "--quiet") == 0
    assert names(tmp_path / "out") == [f"frame_{number}.png" for number in NUMBERS]
    said = capsys.readouterr().err
    is_pattern = "%d" in given
    assert ("94 of the numbers are missing: 3 to 8, 12 to 99" in said) == is_pattern
    assert "6 judged" in said


def test_sub_folders_are_counted_too(model, tmp_path):
    for place in ("cam10/2.png", "cam2/10.png", "cam2/9.png", "cam2/a.png"):
        grey(tmp_path / "in" / place, 20)
    assert predict(model, tmp_path / "in", "--recursive", f"--output={tmp_path / 'out'}") == 0
    places = [row["path"].removeprefix(f"{tmp_path}/in/") for row in rows_of(tmp_path / "out")]
    assert places == ["cam2/9.png", "cam2/10.png", "cam2/a.png", "cam10/2.png"]


def test_a_pattern_takes_what_it_writes_and_nothing_else(model, tmp_path, capsys):
    written = ["a%000007.png", "a%000008.png", "a%1000000.png"]
    for name in [*written, "a%7.png", "a%00000x.png", "a%0000009.png", ".a%000009.png", "b.png"]:
        grey(tmp_path / "in" / name, 20)
    out = tmp_path / "out"
    assert predict(model, tmp_path / "in/a%%%06d.png", f"--output={out}") == 0
    assert names(out) == written
    assert "between 7 and 1000000 999991 of the numbers are missing: 9 to 999999" in (
        capsys.readouterr().err
    )
    # A file that is called like a pattern is that file.
    grey(tmp_path / "in/%06d.png", 20)
    assert predict(model, tmp_path / "in/%06d.png", f"--output={tmp_path / 'one'}") == 0
    assert names(tmp_path / "one") == ["%06d.png"]


def test_a_wrong_pattern_is_answered_with_what_is_there(model, tmp_path, capsys):
    grey(tmp_path / "in/f_000012.png", 20)
    grey(tmp_path / "flat/12.png", 20)
    for given, said in {
        "in/f_%d.png": "no file matches; f_000012.png is there, whose number is written %06d",
        "flat/%06d.png": "no file matches; 12.png is there, whose number is written %d",
        "in/g_%d.png": "g_%d.png: no file matches\n",
        "none/%d.png": "none is no folder",
        "in/%d_%d.png": "a pattern of frames has one number, not two",
    }.items():
        assert predict(model, tmp_path / given, f"--output={tmp_path / 'out'}") == 2
        assert said in capsys.readouterr().err, given


def test_a_camera_writes_numbered_frames(watch, tmp_path, capsys):
    folder = tmp_path / "in"
    # All of one time, as some file systems have them; another's files are left alone.
    for number in (10, 2, 9):
        grey(folder / f"frame_{number}.png", 20)
        os.utime(folder / f"frame_{number}.png", ns=(10**18, 10**18))
    grey(folder / "other_1.png", 20)

    def camera():
        wait_for(lambda: count(folder / "done") == 3)
        grey(folder / "frame_14.png", 20)
        wait_for(lambda: count(folder / "done") == 4)
        grey(folder / "frame_12.png", 20)  # late
        wait_for(lambda: count(folder / "done") == 5)

    assert watch(camera, pattern="frame_%d.png") == 0
    assert names(tmp_path / "out") == [f"frame_{n}.png" for n in (2, 9, 10, 14, 12)]
    assert (folder / "other_1.png").exists()
    said = capsys.readouterr().err
    assert "between 2 and 14 8 of the numbers are missing: 3 to 8, 11, 13" in said
    assert "frame_%d.png: Ctrl-C or SIGTERM ends it" in said


def test_a_folder_of_files_of_one_time_goes_by_number(watch, tmp_path):
    folder = tmp_path / "in"
    for number in NUMBERS:
        grey(folder / f"frame_{number}.png", 20)
        os.utime(folder / f"frame_{number}.png", ns=(10**18, 10**18))
    assert watch(lambda: wait_for(lambda: count(folder / "done") == len(NUMBERS))) == 0
    assert names(tmp_path / "out") == [f"frame_{number}.png" for number in NUMBERS]


def test_a_camera_that_counts_anew_misses_nothing_by_that(capsys):
    missing, pattern = Missing(), Pattern.of("in/%06d.png")
    for number in [*range(5, 9), *range(3), 3, 4]:
        missing.take(number)
    missing.tell(pattern)
    assert not capsys.readouterr().err
    missing.take(6)
    missing.tell(pattern)
    assert "1 of the numbers are missing: 5" in capsys.readouterr().err
