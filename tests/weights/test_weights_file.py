"""The file of weights, read back by the safetensors library itself."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.file import is_ours, read_weights, write_safetensors, write_weights

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 2, 5)).astype(np.float32)
COUNT = np.array(7, np.int64)


def entries(dtype=np.float32):
    return [
        ("params/neck/0/kernel", (3, 3, 2, 5), dtype, lambda: KERNEL),
        ("batch_stats/bn/x/mean", (1,), dtype, lambda: np.ones(1)),
        ("unused/bn.num_batches_tracked", (), np.int64, lambda: COUNT),
    ]


def test_the_library_reads_what_was_written(tmp_path):
    path = tmp_path / "new folder" / "weights.safetensors"
    write_weights(path, entries(), {"kind": "sam", "category": "bottle"})
    tensors = safetensors.load_file(path)
    np.testing.assert_array_equal(tensors["params/neck/0/kernel"], KERNEL)
    assert tensors["unused/bn.num_batches_tracked"] == 7
    assert tensors["unused/bn.num_batches_tracked"].dtype == np.int64
    assert [child.name for child in path.parent.iterdir()] == ["weights.safetensors"]


def test_reading_back_nests_and_keeps_metadata(tmp_path):
    path = tmp_path / "weights"
    write_weights(path, entries(), {"kind": "sam", "category": "bottle"})
    weights = read_weights(path)
    np.testing.assert_array_equal(weights.variables["params"]["neck"]["0"]["kernel"], KERNEL)
    assert weights.unused == {"bn.num_batches_tracked": 7}
    known = {"format": "stlm_jax", "kind": "sam", "layout": "", "category": "bottle"}
    assert known.items() <= weights.metadata.items()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_half_precision_is_rounded_and_read_as_float32(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    write_weights(path, entries(dtype), {"kind": "sam"})
    assert safetensors.load_file(path)["params/neck/0/kernel"].dtype == dtype
    kernel = read_weights(path).variables["params"]["neck"]["0"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, KERNEL.astype(dtype).astype(np.float32))


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(path, entries(), {"kind": "sam"})
    before = path.read_bytes()
    broken = ("params/x/y", (5, 3), np.float32, lambda: np.zeros((3, 5)))
    with pytest.raises(ValueError, match="params/x/y: announced as"):
        write_weights(path, [*entries(), broken], {"kind": "sam"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_ours_is_told_from_others(tmp_path):
    ours, other, text = (tmp_path / name for name in ("a", "b.safetensors", "c.pt"))
    write_weights(ours, entries(), {"kind": "stlm"})
    write_safetensors(other, entries(), {"format": "pt"})
    text.write_text("{" * 100)
    assert is_ours(ours)
    assert not any(is_ours(path) for path in (other, text, tmp_path, tmp_path / "absent"))
    with pytest.raises(UserError, match=r"b\.safetensors: not a weights file"):
        read_weights(other)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut"
    write_weights(path, entries(), {"kind": "sam"})
    path.write_bytes(path.read_bytes()[:-1])
    assert is_ours(path)
    with pytest.raises(UserError, match="cut: truncated"):
        read_weights(path)


def test_a_strange_tensor_is_named(tmp_path):
    path = tmp_path / "strange"
    write_weights(path, [("conv.weight", (2,), np.float32, lambda: np.ones(2))], {"kind": "sam"})
    with pytest.raises(UserError, match=r"strange: conv\.weight is no variable"):
        read_weights(path)
