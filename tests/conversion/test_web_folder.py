"""What brings onnxruntime-web, and where the folder may go; no browser, no model."""

import json
import os
import tarfile

import pytest

from conversion import to_web
from conversion.web import runtime
from conversion.web.folder import check_folder, page_files
from stlm_jax.runtime.errors import UserError


def npm_that(folder, monkeypatch, script):
    """Puts a program `npm` before all others; it sees its options as `$*`, `$to` is the folder."""
    path = folder / "bin" / "npm"
    path.parent.mkdir()
    to = "for x; do case $x in --pack-destination=*) to=${x#*=};; esac; done"
    path.write_text(f"#!/bin/sh\n{to}\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def test_no_npm_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm, which .* not installed: .*--onnxruntime_web=PATH$"):
        runtime.runtime_files()


def test_what_npm_says_is_said(monkeypatch, tmp_path):
    lines = ("code E404", "syscall connect", "network is not to be had.", "A log is there")
    script = "".join(f'echo "npm error {line}" >&2; ' for line in lines) + "exit 1"
    npm_that(tmp_path, monkeypatch, script)
    with pytest.raises(
        UserError, match=r"brings no onnxruntime-web .* \(network is not to be had\):"
    ):
        runtime.runtime_files()


def test_a_package_that_is_not_the_published_one_is_refused(monkeypatch, tmp_path):
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as archive:
        for source, _ in runtime.FILES.values():
            (tmp_path / source).write_bytes(b"another program")
            archive.add(tmp_path / source, f"package/dist/{source}")
    npm_that(tmp_path, monkeypatch, f'echo "$*" > {tmp_path}/asked; cp {tmp_path}/made.tgz "$to"')
    with pytest.raises(UserError, match="is not the published one"):
        runtime.runtime_files()
    asked = (tmp_path / "asked").read_text()
    assert (
        asked.startswith(f"pack onnxruntime-web@{runtime.VERSION} ") and "--ignore-scripts" in asked
    )
    (tmp_path / "made.tgz").write_bytes((tmp_path / "made.tgz").read_bytes()[:50])
    with pytest.raises(UserError, match="is not the published one"):
        runtime.runtime_files()
    with tarfile.open(tmp_path / "made.tgz", "w:gz"):
        pass
    with pytest.raises(UserError, match="is not the published one"):
        runtime.runtime_files()


def test_a_folder_of_the_package_is_taken_or_named(tmp_path, capsys):
    with pytest.raises(UserError, match=r"--onnxruntime_web=\S+: holds no ort\.wasm\.bundle"):
        runtime.runtime_files(tmp_path)
    (tmp_path / "dist").mkdir()
    for source, _ in runtime.FILES.values():
        (tmp_path / "dist" / source).write_bytes(b"of another version")
    for folder in (tmp_path, tmp_path / "dist"):
        assert set(runtime.runtime_files(folder).values()) == {b"of another version"}
        assert capsys.readouterr().err.count("is not that of onnxruntime-web") == 2


def test_only_a_new_or_empty_folder_or_an_older_export_is_written_to(tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="holds other files; give a folder that is new or empty"):
        check_folder(tmp_path)
    with pytest.raises(UserError, match=r"thesis\.txt: is a file; give the name of a folder"):
        check_folder(tmp_path / "thesis.txt")
    for content in ("[]", "{", json.dumps({"format": "other"})):
        (tmp_path / "description.json").write_text(content)
        with pytest.raises(UserError, match="holds other files"):
            check_folder(tmp_path)
    (tmp_path / "description.json").write_text(json.dumps({"format": "stlm_jax"}))
    check_folder(tmp_path)


def test_the_page_asks_for_nothing_from_elsewhere():
    files = page_files()
    assert {"index.html", "app.js", "style.css", "worker.js", "ort/LICENSE.txt"} <= set(files)
    for name, content in files.items():
        assert b"https://" not in content, name
    page = files["index.html"].decode()
    assert (
        "default-src 'none'" in page and "unsafe-inline" not in page and "'unsafe-eval'" not in page
    )
    assert "style=" not in page and "<script>" not in page and "onclick" not in page


def test_a_file_in_the_way_is_one_line(tmp_path, one_line_of_error):
    (tmp_path / "out").write_text("")
    assert "out: is a file" in one_line_of_error(to_web.main(["run", str(tmp_path / "out")]))
