"""Weights files and a teacher feature store in a bucket: libraries that map files read a copy."""

import io
import json

import numpy as np
import pytest
from bucket_server import BUCKET, served_bucket

from stlm_jax.config import default
from stlm_jax.data.cache import GIB
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.training.feature_store import FeatureStore
from stlm_jax.training.store_writer import say_need
from stlm_jax.weights.file import is_ours, read_weights, write_weights
from stlm_jax.weights.load import read_file, read_npz
from stlm_jax.weights.sidecar import read_sidecar, write_sidecar
from stlm_jax.weights.torch_file import open_state_dict

KERNEL = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        yield path_of(BUCKET)


def test_a_weights_file(bucket, tmp_path):
    entry = ("params/layer/kernel", KERNEL.shape, np.float32, lambda: KERNEL)
    for folder in (bucket, tmp_path):
        write_weights(folder / "w.safetensors", [entry], {"kind": "sam"})
    path = bucket / "w.safetensors"
    assert path.read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    for name in (path, str(path)):
        assert is_ours(name)
        np.testing.assert_array_equal(
            read_file(name).variables["params"]["layer"]["kernel"], KERNEL
        )
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    write_atomically(path, content)
    with pytest.raises(UserError, match=r"^gs://bucket/w\.safetensors: "):
        read_weights(path)


def test_an_npz_file(bucket):
    content = io.BytesIO()
    np.savez(content, **{"params/layer/kernel": KERNEL})
    write_atomically(bucket / "sam.npz", content.getvalue())
    np.testing.assert_array_equal(
        read_npz(f"{BUCKET}/sam.npz")["params"]["layer"]["kernel"], KERNEL
    )


def test_a_torch_file(bucket):
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    torch.save({"state_dict": {"module.a.weight": torch.from_numpy(KERNEL)}}, content)
    write_atomically(bucket / "sam.pth", content.getvalue())
    tensors, metadata = open_state_dict(f"{BUCKET}/sam.pth")
    np.testing.assert_array_equal(np.asarray(tensors["a.weight"]), KERNEL)
    assert list(tensors) == ["a.weight"] and metadata == {}


def test_a_description_beside_a_file(bucket):
    path = f"{BUCKET}/m.stablehlo"
    assert read_sidecar(path) == {}
    write_sidecar(path, {"format": "stlm_jax", "category": "disc"})
    assert json.loads((bucket / "m.stablehlo.json").read_text())["category"] == "disc"
    assert read_sidecar(path)["category"] == "disc"


@pytest.mark.parametrize("name", ["none.safetensors", "none.npz", "none.pth"])
def test_a_file_that_is_not_there(bucket, name):
    with pytest.raises(UserError, match=rf"^{BUCKET}/{name}: there is no such weights file"):
        read_file(f"{BUCKET}/{name}")


def test_a_feature_store(bucket):
    description = {"format": 1, "variants": 2, "shape": [2, 3, 3, 4], "seed": 0}
    store = FeatureStore(bucket / "store", description)
    write_atomically(bucket / "store/store.json", json.dumps(description))
    records = [np.full(store.shape, number, np.float32) for number in range(3)]
    store.begin("disc", "none")
    store.write("disc", "abc", records)
    with pytest.raises(UserError, match=r"^gs://bucket/store/disc/def\.array_record: cannot be"):
        store.write("disc", "def", fail())

    opened = FeatureStore.open(path_of(f"{BUCKET}/store"))
    assert opened.identity() == store.identity() and opened.policy("disc") == "none"
    assert opened.digests("disc") == {"abc"}
    for slot, features in zip([2, 0], opened.read("disc", "abc", [2, 0]), strict=True):
        np.testing.assert_array_equal(features.astype(np.float32), records[slot])
    with pytest.raises(UserError, match=r"^gs://bucket/store/disc/def\.array_record is gone"):
        opened.read("disc", "def", [0])


def test_the_room_that_a_store_takes(bucket, capsys):
    description = {"format": 1, "variants": 1, "shape": [1, 16, 32, 512], "seed": 0}
    store = FeatureStore(bucket / "room", description)
    store.write("disc", "abc", [np.zeros(store.shape)] * 2)
    say_need(default(), store, {"disc": [None] * 4})
    (line,) = capsys.readouterr().err.splitlines()
    size = len(store.path("disc", "abc").read_bytes())
    assert 2**20 <= size < 1.2 * 2**20  # a file of 2 records of 2¹⁸ bfloat16
    assert line.endswith(f"take {4 * 2**20 / GIB:.3g} GiB; {size / GIB:.3g} are there")


def fail():
    yield np.zeros((2, 3, 3, 4))
    raise OSError(28, "No space left on device")
