"""Folders whose names are anything that a file system takes, by the commands that read them."""

import contextlib
import json
import os
import shutil
import tempfile

import pytest
import stand_in
from hypothesis import example, given
from hypothesis import strategies as st
from outcome import budget, command

from stlm_jax.cli.main import main

CONTENT = {}
NAMES = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from([
        b"-rf", b"--config.seed=1", b"a\nb", b"\r", b"\xff\xfe", b"caf\xc3\xa9", b"cafe\xcc\x81",
        b"A", b"a", b"x" * 240, b"@root", b"@=a", b"predictions.jsonl", b"...", b"~", b"$(id)",
        b"*", b"[a]", b"?.png", b"a=b", b"\xe2\x80\xa8", b"\x1b[31m", b"good", b"Good ", b" good",
        b"train", b"test", b"ground_truth", b"CON", b"a\\b", b"a;b", b"%s", b"{0}", b"gs:",
        b"\xc2\x85", b"gs://x".replace(b"/", b"_"),
    ]),
)  # fmt: skip


def usable(name: bytes) -> bool:
    return name not in (b".", b"..") and b"/" not in name and b"\0" not in name


PARTS = st.lists(NAMES.filter(usable), min_size=0, max_size=3)
SUFFIXES = st.sampled_from([b".png", b".PNG", b".jpg", b"", b".tiff", b".png.png", b".txt"])
FILES = st.lists(st.tuples(PARTS, NAMES.filter(usable), SUFFIXES), min_size=1, max_size=6)
LINKS = st.lists(st.tuples(PARTS, NAMES.filter(usable), st.sampled_from(
    ["..", ".", "loop", "/dev/null", "nowhere"]
)), max_size=2)  # fmt: skip


@contextlib.contextmanager
def tree(files, links, above=()):
    """A folder with such files of one small image each; those that a file system refuses lack."""
    if not CONTENT:
        CONTENT.update({v: _png(v) for v in (40, 90, 250)})
    root = os.fsencode(tempfile.mkdtemp(prefix="stlm_fuzz_"))
    try:
        base = os.path.join(root, b"in", *above)
        os.makedirs(base)
        for number, (parts, name, suffix) in enumerate(files):
            with contextlib.suppress(OSError):
                os.makedirs(os.path.join(base, *parts), exist_ok=True)
                with open(os.path.join(base, *parts, name + suffix), "xb") as file:
                    file.write(CONTENT[(40, 90, 250)[number % 3]])
        for parts, name, target in links:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.join(base, *parts), exist_ok=True)
                aim = name if target == "loop" else target.encode()
                os.symlink(aim, os.path.join(base, *parts, name))
        yield os.fsdecode(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _png(value):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        stand_in.use(patch.setattr)
        yield stand_in.model_file(tmp_path_factory.mktemp("model"))


def images_below(folder):
    """What `--recursive` is to find: by suffix, visible, files; without links' circles."""
    found = []
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(above, name)
            shown = not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXED
            if shown and os.path.isfile(path):
                found.append(path)
    return found


SUFFIXED = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@budget(12, 250)
@given(files=FILES, links=LINKS)
@example(files=[([b"a"], b"b\nc", b".png"), ([b"A"], b"b", b".PNG")], links=[([], b"l", "..")])
def test_prediction_judges_every_image_once(model, files, links):
    with tree(files, links) as root:
        source, output = os.path.join(root, "in"), os.path.join(root, "out")
        arguments = ["stlm", "predict", str(model), source, "--recursive", f"--output={output}",
                     "--maps=npy"]  # fmt: skip
        there = images_below(source)
        status, lines = command(main, arguments)
        if not there and status == 2:
            return
        with open(os.path.join(output, "predictions.jsonl"), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        maps = [row["map"] for row in rows if "map" in row]
        assert len(set(maps)) == len(maps) and not any(".." in m.split("/") for m in maps)
        assert len({row["id"] for row in rows}) == len(rows)
        judged = {row["path"] for row in rows}
        for path in there:
            shown = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            shown = shown.encode("utf-8", "backslashreplace").decode()
            assert shown in judged or links, (path, judged)
        assert (status == 1) == any("error" in row for row in rows)
        before = len(rows)
        again, _ = command(main, arguments)
        with open(os.path.join(output, "predictions.jsonl"), encoding="utf-8") as file:
            assert again == status and len(file.readlines()) == before


@budget(12, 300)
@given(files=FILES, links=LINKS, part=st.sampled_from(
    [(b"train", b"good"), (b"part", b"train", b"good"), (), (b"-x", b"train", b"Good")]
))  # fmt: skip
def test_check_says_what_is_there(files, links, part):
    with tree(files, links, part) as root:
        status, lines = command(main, ["stlm", "check", f"--data={os.path.join(root, 'in')}"])
        assert lines == [] or all(line.isprintable() or "\t" in line for line in lines), lines


@budget(12, 300)
@given(name=NAMES.filter(usable), data=st.data())
def test_a_name_on_the_command_line(model, name, data):
    """What a shell hands over: an option that is none, a glob, a file that is not there."""
    with tree([([], name, b".png")], []) as root:
        shown = os.fsdecode(name)
        given_ = data.draw(st.sampled_from([
            os.path.join(root, "in", shown + ".png"), os.path.join(root, "in", shown, "*"), shown,
            os.path.join(root, "in", "*"), os.path.join(root, shown),
        ]))  # fmt: skip
        status, lines = command(main, ["stlm", "predict", str(model), given_,
                                       f"--output={os.path.join(root, 'out')}"])  # fmt: skip
        assert all("\n" not in line for line in lines)
