"""Paths, of local files as `pathlib` has them and in a bucket."""

import pathlib

import pytest
from bucket_server import BUCKET, served_bucket

from stlm_jax.runtime import paths
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import open_atomically, write_atomically
from stlm_jax.runtime.paths import Staged, in_bucket, local_copy, path_of


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        yield path_of(BUCKET)


@pytest.fixture(params=["local", "bucket"])
def folder(request, tmp_path):
    """An empty folder of either kind."""
    if request.param == "local":
        return path_of(tmp_path)
    return request.getfixturevalue("bucket") / tmp_path.name


def test_a_local_name_is_a_path_of_pathlib(tmp_path):
    assert type(path_of(str(tmp_path))) is type(tmp_path) and path_of("a/b") == pathlib.Path("a/b")
    assert not in_bucket("gs:/a") and not in_bucket(None) and in_bucket("gs://a")
    assert local_copy(tmp_path / "x") == tmp_path / "x"


def test_parts_of_a_path_in_a_bucket():
    path = path_of("gs://bucket/run/disc/x.tar.gz")
    assert str(path) == f"{path}" == path.as_posix() == "gs://bucket/run/disc/x.tar.gz"
    assert (path.name, path.stem, path.suffix) == ("x.tar.gz", "x.tar", ".gz")
    assert path.parent.parent == path_of("gs://bucket/run") and path == path_of(path)
    assert path.relative_to(path_of("gs://bucket/run")).as_posix() == "disc/x.tar.gz"
    assert path.absolute() == path.resolve() == path and in_bucket(path.with_name("y"))
    assert in_bucket(path_of("gs://bucket") / "a" / "b")
    assert (
        str(path_of("gs://bucket").parent) == "gs://bucket" == str(path_of("gs://bucket/a").parent)
    )


def test_other_places_are_refused():
    with pytest.raises(UserError, match=r"^s3://x/y: .* only gs://… is known$"):
        path_of("s3://x/y")


def test_both_kinds_answer_alike(folder):
    (folder / "a").mkdir(parents=True, exist_ok=True)
    names = ["a/one.txt", "a/two é#[1].txt", "a/b/three.txt", "four.bin"]
    for name in names:
        write_atomically(folder / name, name.encode())
    assert sorted(p.name for p in folder.iterdir()) == ["a", "four.bin"]
    assert sorted(p.name for p in (folder / "a").iterdir()) == ["b", "one.txt", "two é#[1].txt"]
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt"))
    assert found == sorted(names[:3])
    assert [p.name for p in folder.glob("*/one.txt")] == ["one.txt"]
    assert [p.name for p in folder.glob("*/b")] == ["b"] and not list(folder.glob("none/*"))
    for name, is_file, is_dir in [("a", 0, 1), ("four.bin", 1, 0), ("none", 0, 0), ("a/b", 0, 1)]:
        path = folder / name
        assert (path.is_file(), path.is_dir(), path.exists()) == (
            bool(is_file), bool(is_dir), bool(is_file or is_dir),
        )  # fmt: skip
        assert paths.is_taken(path) == path.exists()
    assert (folder / names[1]).read_text(encoding="utf-8") == names[1]
    assert (folder / "four.bin").stat().st_size == 8
    with (folder / "four.bin").open("rb") as file:
        assert file.read(4) == b"four"
    for name in ("none", "none/x"):
        with pytest.raises(FileNotFoundError):
            (folder / name).read_bytes()
        (folder / name).unlink(missing_ok=True)
    (folder / "four.bin").unlink()
    assert not (folder / "four.bin").exists() and [p.name for p in folder.iterdir()] == ["a"]


def test_a_changed_file_has_another_state(folder):
    before = (write_atomically(folder / "x", b"one").stat().st_mtime_ns, b"one")
    after = (write_atomically(folder / "x", b"two").stat().st_mtime_ns, b"two")
    assert before[0] != after[0] and (folder / "x").read_bytes() == b"two"


def test_a_file_is_whole_or_as_it_was(folder):
    write_atomically(folder / "x", "old")
    with pytest.raises(RuntimeError), open_atomically(folder / "x") as file:
        file.write(b"half")
        raise RuntimeError
    assert (folder / "x").read_text() == "old" and [p.name for p in folder.iterdir()] == ["x"]
    with open_atomically(folder / "new/y") as file:
        file.write(b"12")
        file.seek(0)
        file.write(b"3")
    assert (folder / "new/y").read_bytes() == b"32"


def test_a_library_writes_into_a_staged_folder(folder):
    with Staged(folder / "events") as staged:
        assert not in_bucket(staged.path)
        (staged.path / "sub").mkdir()
        (staged.path / "sub/x").write_text("one")
        staged.send()
        assert (folder / "events/sub/x").read_text() == "one"
        with (staged.path / "sub/x").open("a") as file:
            file.write(" two")
    assert (folder / "events/sub/x").read_text() == "one two"


def test_a_local_copy_of_a_file(folder):
    write_atomically(folder / "weights/w.bin", b"123")
    copy = local_copy(folder / "weights/w.bin")
    assert isinstance(copy, pathlib.PosixPath) and copy.read_bytes() == b"123"
    assert not local_copy(folder / "weights/none.bin").exists()


def test_a_large_file_in_a_bucket(bucket):
    content = bytes(range(256)) * 2**15  # 8 MiB: more than is sent at once
    write_atomically(bucket / "large", content)
    assert (bucket / "large").read_bytes() == content


def test_what_a_bucket_refuses_is_one_line(bucket, monkeypatch):
    with pytest.raises(UserError, match=r"^gs://other: there is no such bucket .*check its name$"):
        path_of("gs://other/x").is_dir()
    with pytest.raises(UserError, match=r"^gs://: the name of the bucket is missing"):
        path_of("gs://").is_dir()
    files = (bucket / "x")._files

    def refuse(*_, **__):
        raise OSError("Forbidden: https://x\nno permission")

    monkeypatch.setattr(files, "pipe_file", refuse)
    with pytest.raises(UserError, match=r"^gs://bucket/x: the bucket refuses \(Forbidden:.*login`"):
        (bucket / "x").write_bytes(b"")


def test_without_gcsfs_a_line_says_what_to_install(monkeypatch):
    import fsspec
    from etils.epath import backend

    from stlm_jax.runtime import bucket as module

    def missing(*_, **__):
        raise ImportError("Please install gcsfs")

    module._file_system.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match=r"^gs://b: .* need gcsfs; pip install 'stlm_jax\[gcs\]'$"):
        path_of("gs://b/x").exists()
