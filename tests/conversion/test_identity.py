"""torch to Flax to torch, and Flax to torch to Flax, bit for bit, through the command lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.torch import save_file

from conversion import from_torch, to_torch
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.training.state import create_train_state
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.weights.file import read_weights, write_weights
from stlm_jax.weights.published import convert, read_checkpoint
from stlm_jax.workdir import write_run

torch = pytest.importorskip("torch")


def run(command, *arguments):
    assert command.main([str(argument) for argument in arguments]) == 0


def published(golden, layout):
    """A layout's tensors, with counters that are not all zero."""
    manifest = golden.load_manifest(layout)
    return {name: torch.from_numpy(published_tensor(golden, name, manifest)) for name in manifest}


def published_tensor(golden, name, manifest):
    if name.endswith("num_batches_tracked"):
        return np.array(len(name), np.int64)
    return np.asarray(golden.tensor(name, manifest[name]))


def assert_identical(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def assert_same_variables(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize(
    "layout",
    [
        "mobile_sam",
        "sam_vit_b",
        pytest.param("sam_vit_l", marks=pytest.mark.slow),
        pytest.param("sam_vit_h", marks=pytest.mark.slow),
    ],
)
def test_torch_to_flax_to_torch_of_sam(golden, tmp_path, layout):
    tensors = published(golden, layout)
    source, ours, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pt"))
    torch.save(tensors, source)
    run(from_torch, source, ours)
    source.unlink()
    run(to_torch, ours, back)
    loaded = torch.load(back, weights_only=True, mmap=True)
    assert_identical(loaded, tensors)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_torch_to_flax_to_torch_of_stlm(golden, tmp_path, suffix):
    pair = [published(golden, layout) for layout in ("stlm_twostream", "stlm_segmentation")]
    sources = [tmp_path / f"source{index}{suffix}" for index in range(2)]
    for tensors, source in zip(pair, sources, strict=True):
        torch.save(tensors, source) if suffix == ".pt" else save_file(tensors, source)
    ours = tmp_path / "ours.safetensors"
    run(from_torch, sources[0], ours, "--layout=stlm", f"--segmentation={sources[1]}")
    run(to_torch, ours, tmp_path / "1.pt", f"--segmentation={tmp_path / '2.pt'}")
    for tensors, name in zip(pair, ("1.pt", "2.pt"), strict=True):
        assert_identical(torch.load(tmp_path / name, weights_only=True), tensors)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_flax_to_torch_to_flax_of_a_trained_student(
    tmp_path, tiny_stlm_variables, tiny_config, suffix
):
    """A student trained here has no unused tensors; they are written as zeros."""
    ours, out, back = (tmp_path / name for name in ("a.safetensors", f"b{suffix}", "c.safetensors"))
    flat = jax.tree_util.tree_leaves_with_path(tiny_stlm_variables)
    entries = [
        ("/".join(key.key for key in path), x.shape, x.dtype, lambda x=x: x) for path, x in flat
    ]
    write_weights(ours, entries, {"kind": "stlm"})
    run(to_torch, ours, out)
    run(from_torch, out, back)
    weights = read_weights(back)
    assert weights.metadata["kind"] == "stlm"
    assert_same_variables(weights.variables, tiny_stlm_variables)
    assert weights.unused and not any(np.any(tensor) for tensor in weights.unused.values())
    assert_same_variables(read_checkpoint(out).variables, tiny_stlm_variables)
    tensors = to_torch.torch_tensors(tiny_stlm_variables)
    state_dict = {name: tensor.read() for name, tensor in tensors.items()}
    shapes = variable_shapes(build_stlm(tiny_config))
    assert_same_variables(convert(state_dict, shapes), tiny_stlm_variables)


def test_a_run_is_written_as_torch(tmp_path, tiny_config):
    folder = tmp_path / "run" / "disc"
    write_run(tmp_path / "run", tiny_config, ("train",))
    state = create_train_state(tiny_config, build_stlm(tiny_config), jax.random.key(5))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, state.student(), state.training(), {})
    run(to_torch, folder, tmp_path / "out.pt")
    written = read_checkpoint(tmp_path / "out.pt").variables
    assert_same_variables(written, jax.tree.map(np.asarray, state.student()))


def test_a_published_file_can_be_written_as_another_type(tmp_path, tiny_stlm):
    torch.save(tiny_stlm, tmp_path / "a.pt")
    run(to_torch, tmp_path / "a.pt", tmp_path / "b.safetensors")
    run(to_torch, tmp_path / "b.safetensors", tmp_path / "c.pth")
    assert_identical(torch.load(tmp_path / "c.pth", weights_only=True), tiny_stlm)


@pytest.mark.parametrize(
    "wrap", ["state_dict", "model", "module.", "both", "old file", "parameters"]
)
def test_dressed_up_state_dicts_are_the_same(tmp_path, tiny_sam, wrap):
    dressed = {
        "state_dict": {"epoch": 3, "state_dict": tiny_sam},
        "model": {"model": tiny_sam, "optimizer": {"lr": 1.0}},
        "module.": {f"module.{name}": tensor for name, tensor in tiny_sam.items()},
        "both": {"state_dict": {f"module.{name}": tensor for name, tensor in tiny_sam.items()}},
        "old file": tiny_sam,
        "parameters": {
            name: torch.nn.Parameter(x) if x.is_floating_point() else x
            for name, x in tiny_sam.items()
        },
    }[wrap]
    source, ours, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pt"))
    torch.save(dressed, source, _use_new_zipfile_serialization=wrap != "old file")
    run(from_torch, source, ours)
    run(to_torch, ours, back)
    assert_identical(torch.load(back, weights_only=True), tiny_sam)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_the_source(tmp_path, tiny_sam, dtype, suffix):
    source, ours, back = (tmp_path / name for name in (f"a{suffix}", "b.safetensors", "c.pt"))
    rounded = {name: x.to(dtype) if x.is_floating_point() else x for name, x in tiny_sam.items()}
    torch.save(rounded, source) if suffix == ".pt" else save_file(rounded, source)
    run(from_torch, source, ours)
    run(to_torch, ours, back)
    expected = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in rounded.items()
    }
    assert_identical(torch.load(back, weights_only=True), expected)


def test_bfloat16_stores_half(golden, tmp_path):
    tensors = published(golden, "mobile_sam")
    torch.save(tensors, tmp_path / "a.pt")
    run(from_torch, tmp_path / "a.pt", tmp_path / "whole.safetensors")
    run(from_torch, tmp_path / "a.pt", tmp_path / "half.safetensors", "--dtype=bfloat16")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.505 * sizes[0]  # the header is the same
    whole, half = (read_weights(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), whole.variables)
    assert_same_variables(half.variables, rounded)
    counters = {name: x for name, x in half.unused.items() if x.dtype == np.int64}
    assert counters and counters == {name: len(name) for name in counters}
