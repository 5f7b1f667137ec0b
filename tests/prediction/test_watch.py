"""A folder that a camera fills."""

import os
import time

import pytest
import stand_in
from stand_in import QUICK, Slow, by_path, count, grey, predict, rows_of, wait_for


def test_new_files_are_judged_and_moved(watch, tmp_path, capsys):
    folder = tmp_path / "in"

    def camera():
        for index in range(5):
            grey(folder / f"frame_{index:06}.png", 20 + 40 * index)
        wait_for(lambda: count(folder / "done") == 5)
        grey(folder / "frame_000005.png", 30)
        (folder / "note.txt").write_text("x")
        wait_for(lambda: count(folder / "done") == 6)

    assert watch(camera) == 0
    rows = by_path(tmp_path / "out", folder)
    assert [rows[f"frame_{i:06}.png"]["verdict"] for i in range(6)] == (
        ["good"] * 2 + ["defective"] * 3 + ["good"]
    )
    for name, row in rows.items():
        assert row["moved_to"] == str(folder / "done" / name)
    assert sorted(p.name for p in folder.iterdir()) == ["done", "note.txt"]
    printed = capsys.readouterr().err
    assert "watching" in printed and "stopped after the image at hand" in printed


def test_a_file_that_is_being_written_is_not_read(watch, tmp_path, monkeypatch):
    whole = tmp_path / "whole.png"
    grey(whole, 200, size=(300, 200))
    content, folder, looked = whole.read_bytes(), tmp_path / "in", Slow()
    stand_in.use(monkeypatch.setattr, looked)
    partial, before = [], []

    def camera():
        with open(folder / "slow.png", "wb") as file:
            for start in range(0, len(content), len(content) // 8 + 1):
                file.write(content[start : start + len(content) // 8 + 1])
                file.flush()
                time.sleep(0.05)
                partial.append(count(folder / "done") + count(folder / "failed"))
                before.append(looked.seen - 1)  # the first is to compile
        wait_for(lambda: count(folder / "done") == 1)

    assert watch(camera) == 0
    assert not any(partial) and max(before) <= 0
    (row,) = rows_of(tmp_path / "out")
    assert row["score"] == pytest.approx(200 / 255) and row["width"] == 300


def test_a_writer_that_pauses_is_waited_for(watch, tmp_path):
    """What cannot be read yet is tried again; still and unreadable for long, it is given up."""
    whole = tmp_path / "whole.png"
    grey(whole, 200)
    content, folder = whole.read_bytes(), tmp_path / "in"

    def camera():
        with open(folder / "slow.png", "wb") as file:
            file.write(content[:100])
            file.flush()
            time.sleep(0.3)  # longer than a file has to be still
            file.write(content[100:])
        wait_for(lambda: count(folder / "done") == 1)

    assert watch(camera) == 0
    assert "score" in rows_of(tmp_path / "out")[0]


def test_bad_files_go_to_failed(watch, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    grey(folder / "b_nan.png", 13)
    grey(folder / "c.png", 30)
    (folder / "a_bad.png").write_bytes(b"no image")

    def camera():
        wait_for(lambda: count(folder / "failed") == 2 and count(folder / "done") == 1)

    assert watch(camera) == 1
    rows = by_path(tmp_path / "out", folder)
    assert "cannot read" in rows["a_bad.png"]["error"]
    assert "not finite" in rows["b_nan.png"]["error"] and "verdict" not in rows["b_nan.png"]
    assert rows["a_bad.png"]["moved_to"] == str(folder / "failed/a_bad.png")
    assert "score" in rows["c.png"]


def test_a_camera_that_counts_anew_loses_nothing(watch, tmp_path):
    folder, done = tmp_path / "in", tmp_path / "elsewhere"

    def camera():
        for number, value in enumerate((20, 120, 220), 1):
            grey(folder / "frame.png", value)
            wait_for(lambda number=number: count(done) == number)

    assert watch(camera, f"--done={done}", "--maps=npy") == 0
    rows = rows_of(tmp_path / "out")
    assert [row["score"] * 255 for row in rows] == pytest.approx([20, 120, 220])
    assert [row["map"] for row in rows] == [
        f"{name}/map.npy" for name in ("frame.png", "@2=frame.png", "@3=frame.png")
    ]
    assert all((tmp_path / "out" / row["map"]).is_file() for row in rows)
    moved = [str(done / name) for name in ("frame.png", "frame~2.png", "frame~3.png")]
    assert [row["moved_to"] for row in rows] == moved
    assert all(map(os.path.isfile, moved))


def test_killed_between_a_row_and_the_move_it_moves_the_file(watch, tmp_path, monkeypatch):
    folder, looked = tmp_path / "in", Slow()
    stand_in.use(monkeypatch.setattr, looked)
    grey(folder / "a.png", 20)
    real = os.rename

    def killed(source, target):
        raise OSError(5, "as if the power had gone", str(source))

    monkeypatch.setattr(os, "rename", killed)
    assert watch(None) == 2
    assert len(rows_of(tmp_path / "out")) == 1 and (folder / "a.png").exists()
    monkeypatch.setattr(os, "rename", real)
    assert watch(lambda: wait_for(lambda: count(folder / "done") == 1)) == 0
    assert len(rows_of(tmp_path / "out")) == 1 and looked.seen == 3  # one to compile, each time
    assert not (folder / "a.png").exists()


def test_sub_folders_stop_and_wrong_use(watch, model, tmp_path, capsys):
    folder = tmp_path / "in"
    grey(folder / "left/a.png", 20)
    grey(folder / "right/a.png", 20)

    def camera():
        wait_for(lambda: count(folder / "done/left") + count(folder / "done/right") == 2)

    assert watch(camera, "--recursive") == 0
    assert len(rows_of(tmp_path / "out")) == 2
    (folder / "bad.png").write_bytes(b"")
    command = [model, folder, "--watch", f"--output={tmp_path / 'out'}", *QUICK]
    assert predict(*command, "--on_error=stop") == 2
    assert "bad.png" in capsys.readouterr().err and (folder / "bad.png").exists()
    assert predict(model, model, "--watch", *QUICK) == 2
    assert "is no local folder" in capsys.readouterr().err
    assert predict(*command, f"--done={folder}") == 2
    assert "--done" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(model, folder, folder, "--watch")


def test_a_clock_that_is_wrong_keeps_no_file_waiting(watch, tmp_path, monkeypatch):
    folder, real, calls = tmp_path / "in", time.time, []
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * len(calls.append(1) or calls))

    def camera():
        for name, changed in (("old", -86400), ("future", 4e9), ("now", real())):
            grey(folder / f"{name}.png", 20)
            os.utime(folder / f"{name}.png", (changed, changed))
        wait_for(lambda: count(folder / "done") == 3)

    assert watch(camera) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 3 and all(row["ms"] >= 0 for row in rows)
