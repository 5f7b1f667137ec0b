"""Damaged files of weights: each is refused in a line, or is the very model that it was."""

import json
import re
import shutil
import struct
import zipfile

import jax
import numpy as np
import pytest
from damage import damaged, damaged_json, damaged_zip
from hypothesis import given
from hypothesis import strategies as st
from outcome import budget, refusal

from stlm_jax.inference.trained_model import load_trained
from stlm_jax.weights.load import DEMO_TEACHER, read_file

pytest.importorskip("torch")
LINE = "carries no digest of its weights"


@pytest.fixture(scope="module")
def files(finished_run, tmp_path_factory):
    """A run's model as every file of weights, by the commands; and one of torch's old format."""
    import torch

    from conversion import from_torch, to_torch

    folder, run = tmp_path_factory.mktemp("weights"), finished_run / "run" / "disc"
    found = {name: folder / f"disc.{name}" for name in ("pt", "safetensors", "ours", "old")}
    for command, *arguments in (
        (to_torch, run, found["pt"]),
        (to_torch, run, found["safetensors"]),
        (from_torch, found["pt"], found["ours"]),
    ):
        assert command.main([str(argument) for argument in arguments]) == 0
    state = torch.load(found["pt"], weights_only=True)
    torch.save(state, found["old"], _use_new_zipfile_serialization=False)
    return found


def model_of(path):
    """All that a score depends on."""
    trained = load_trained(path)
    return trained.variables, trained.description


def same(found, expected) -> bool:
    alike = jax.tree.structure(found[0]) == jax.tree.structure(expected[0])
    return alike and found[1] == expected[1] and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, found[0], expected[0]))
    )  # fmt: skip


def check(kind, path, expected, load=model_of):
    """An input is refused, or the same, or lost its digest: then finite, and that is said."""
    found, said = refusal(kind, lambda: load(path), path)
    if found is None or same(found, expected):
        return
    assert LINE in said, f"another model in silence: {path}"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found[0]))


@pytest.fixture(scope="module")
def expected(files):
    return {kind: model_of(path) for kind, path in files.items()}


@pytest.fixture(scope="module")
def teacher():
    return read_file(DEMO_TEACHER).variables


@pytest.mark.parametrize("kind", ["pt", "old", "safetensors", "ours"])
@budget(8, 400)
@given(data=st.data())
def test_damaged_bytes(kind, files, expected, tmp_path_factory, data):
    content = data.draw(damaged(files[kind].read_bytes()))
    path = files[kind].with_name(f"damaged{files[kind].suffix}")
    path.write_bytes(content)
    check(kind, path, expected[kind])


@budget(8, 400)
@given(data=st.data(), suffix=st.sampled_from([".pt", ".npz", ".safetensors", ".onnx", ".xml"]))
def test_another_ending(files, expected, data, suffix):
    """A reader is chosen by what a file is called and begins with; both may be wrong."""
    kind = data.draw(st.sampled_from(list(files)))
    content = files[kind].read_bytes()
    if suffix in (".onnx", ".xml"):
        from stlm_jax.inference import Detector

        load = Detector.load
    else:
        load = model_of
    path = files[kind].with_name(f"renamed{suffix}")
    path.write_bytes(content if data.draw(st.booleans()) else data.draw(damaged(content)))
    found, said = refusal("ending", lambda: load(path), path.stem)
    assert found is None or same(found, expected[kind]) or LINE in said


@pytest.mark.parametrize("kind", ["safetensors", "ours"])
@budget(8, 400)
@given(data=st.data())
def test_a_header_that_lies(kind, files, expected, data):
    """Other types, shapes, offsets, names and metadata, in a header that is whole."""
    content = files[kind].read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    names = data.draw(st.permutations([n for n in header if n != "__metadata__"]))
    part = {n: header[n] for n in ["__metadata__", *names[:2]]}
    text = data.draw(damaged_json(part))
    try:
        changed = json.loads(text)
    except (ValueError, RecursionError):
        changed = None
    if isinstance(changed, dict):
        for name in names[:2]:
            header.pop(name)
        text = json.dumps({**header, **changed}).encode()
    path = files[kind].with_name(f"lies{files[kind].suffix}")
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    check(kind, path, expected[kind])


@budget(6, 300)
@given(data=st.data())
def test_a_torch_archive_of_other_members(files, expected, data):
    path = files["pt"].with_name("archive.pt")
    path.write_bytes(data.draw(damaged_zip(files["pt"].read_bytes())))
    check("pt", path, expected["pt"])


@budget(6, 300)
@given(data=st.data())
def test_code_in_a_torch_pickle(files, expected, data):
    """Calls of functions anywhere in the pickle: none is ever made."""
    marker = files["pt"].with_name("ran")
    calls = [
        b"cos\nsystem\n(S'touch %s'\ntR." % bytes(marker),
        b"c__builtin__\neval\n(S'open(%r, \"w\")'\ntR." % str(marker),
        b"ctorch\nload\n(S'%s'\ntR." % bytes(files["pt"]),
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\nS'system'\ntR",
    ]
    path = files["pt"].with_name("calls.pt")
    with zipfile.ZipFile(files["pt"]) as archive, zipfile.ZipFile(path, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                call, at = data.draw(st.sampled_from(calls)), data.draw(st.integers(0, 3000))
                content = content[:at] + call + content[at:]
            out.writestr(name, content)
    check("pt", path, expected["pt"])
    assert not marker.exists()


@budget(6, 300)
@given(data=st.data())
def test_a_damaged_npz(files, teacher, data):
    content = DEMO_TEACHER.read_bytes()
    strategy = damaged_zip(content) if data.draw(st.booleans()) else damaged(content)
    path = files["pt"].with_name("teacher.npz")
    path.write_bytes(data.draw(strategy))
    found, _ = refusal("npz", lambda: read_file(path).variables, path)
    if found is not None and not same((found, None), (teacher, None)):
        # An archive of other whole tensors: each has its CRC, so that none is damaged.
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


# --- checkpoints ---


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    shutil.copytree(finished_run / "run", folder, ignore=shutil.ignore_patterns("results"))
    return folder


@pytest.fixture(scope="module")
def whole(run):
    return model_of(run / "disc")


@budget(5, 100)
@given(data=st.data())
def test_a_damaged_checkpoint(run, whole, data):
    """Any file of the newest checkpoint: it is as it was, or the one before is read, and told."""
    folder = run / "disc"
    newest = folder / "checkpoints" / "6"
    files = sorted(p for p in newest.rglob("*") if p.is_file() and "training" not in p.parts)
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    try:
        if data.draw(st.integers(0, 9)) == 0:
            file.unlink()
        else:
            is_json = content.startswith(b"{")
            use_json = is_json and data.draw(st.booleans())
            file.write_bytes(
                data.draw(damaged_json(json.loads(content)) if use_json else damaged(content))
            )
        found, said = refusal("checkpoint", lambda: model_of(folder), "disc")
    finally:
        file.write_bytes(content)
    if found is not None and not same(found, whole):
        assert re.search(r"checkpoints/6: damaged, ignored", said), said
        # What judges was estimated with the weights that could not be read.
        assert found[1].calibration is None
