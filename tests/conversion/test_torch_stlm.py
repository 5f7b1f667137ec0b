"""The PyTorch STLM against what the published code computed, and against the Flax model."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from conversion.to_torch import torch_tensors
from stlm_jax.config import default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import ENCODERS, SAM_VARIANTS, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.layouts import split, used_shapes
from stlm_jax.weights.names import UNUSED

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from conversion.torch_model.segmentation import (  # noqa: E402
    Segmentation,
    aggregate,
    cosine_distance_map,
)
from conversion.torch_stlm import TorchStlm, Widths  # noqa: E402

pytestmark = pytest.mark.usefixtures("highest_precision")

TOLERANCE = 1e-4
LAYOUTS = ("stlm_twostream", "stlm_segmentation")


def subsample(features):
    return features[:, ::16, ::8, ::8]


def golden_tensors(golden, layout):
    tensors = golden.state_dict(golden.load_manifest(layout), seed=0)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in tensors.items()}


@pytest.mark.slow
def test_golden_features_maps_and_scores(golden, relative_error, tmp_path):
    paths = [tmp_path / f"{layout}.pt" for layout in LAYOUTS]
    for layout, path in zip(LAYOUTS, paths, strict=True):
        torch.save(golden_tensors(golden, layout), path)
    model = TorchStlm.load(*paths)
    images = torch.from_numpy(golden.image(1024, 1024, 2, batch=2))
    streams = model.features(images)
    anomaly_map = model.segmentation(aggregate(*streams))
    with np.load(golden.folder / "stlm_eval_1024.npz") as expected:
        for stream, name in zip(streams, ("plain", "denoise"), strict=True):
            for level, feature in enumerate(stream, 1):
                assert relative_error(subsample(feature), expected[f"{name}{level}"]) <= TOLERANCE
        assert relative_error(anomaly_map, expected["fa"][:, 0]) <= TOLERANCE
        assert relative_error(cosine_distance_map(*streams), expected["tlm"][:, 0]) <= TOLERANCE
        score = model(images)["anomaly_score"]
        assert relative_error(score, expected["image_score"]) <= TOLERANCE


def test_golden_segmentation(golden, relative_error):
    model = Segmentation(512, 128)
    model.load_state_dict(golden_tensors(golden, "stlm_segmentation"), strict=True)
    x = np.random.default_rng(5).standard_normal((2, 512, 16, 16)) * 0.05
    with torch.no_grad():
        actual = model.eval()(torch.from_numpy(x.astype(np.float32)))
    with np.load(golden.folder / "fa_module.npz") as expected:
        assert relative_error(actual, expected["eval_out"][:, 0]) <= TOLERANCE


def test_tensors_are_named_as_published(golden):
    two_stream, segmentation = (golden.load_manifest(layout) for layout in LAYOUTS)
    published = two_stream | {f"segmentation.{name}": x for name, x in segmentation.items()}
    built = {name: tuple(x.shape) for name, x in TorchStlm().state_dict().items()}
    for names in (published, built):
        for name in [name for name in names if UNUSED.search(name)]:
            del names[name]
    assert built == published


def small_config(encoder="tiny_vit_test", teacher="vit_tiny"):
    config = default()
    config.student.encoder = encoder
    config.teacher.name = teacher
    return config


def eventful_variables(model):
    """Variables of which every bias, norm and running statistic matters."""
    rng = np.random.default_rng(0)
    flat = {}
    for path, leaf in sorted(traverse_util.flatten_dict(variable_shapes(model)).items()):
        x = rng.standard_normal(leaf.shape)
        if path[-1] == "var":
            x = rng.uniform(0.5, 1.5, leaf.shape)
        elif path[-1] == "scale":
            x = 1 + 0.1 * x
        elif path[-1] == "kernel":
            x *= np.prod(leaf.shape[:-1]) ** -0.5
        elif path[-1] != "positional_encoding_gaussian_matrix":
            x *= 0.1
        flat[path] = x.astype(np.float32)
    return traverse_util.unflatten_dict(flat)


@pytest.fixture(scope="module")
def flax_model():
    model = build_stlm(small_config())
    return model, eventful_variables(model)


@pytest.fixture(scope="module")
def tensors(flax_model):
    return {name: torch.tensor(x.read()) for name, x in torch_tensors(flax_model[1]).items()}


@pytest.fixture
def weights_file(tensors, tmp_path):
    path = tmp_path / "stlm.pt"
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("size", [(208, 208), (96, 176)])  # no multiples of the windows
def test_agrees_with_flax(flax_model, weights_file, relative_error, size):
    model, variables = flax_model
    images = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    predict = make_predict_fn(small_config(), model)

    @jax.jit
    def both(variables, images):
        return predict(variables, images, size), model.apply(variables, images)

    expected, prediction = both(variables, images)
    ours = TorchStlm.load(weights_file)
    actual = ours(torch.from_numpy(images))
    assert {name: x.dtype for name, x in actual.items()} == dict.fromkeys(
        (f"anomaly_{name}" for name in expected), torch.float32
    )
    for name, value in expected.items():
        assert relative_error(actual[f"anomaly_{name}"], value) <= TOLERANCE, name
    streams = ours.features(torch.from_numpy(images))
    for stream, wanted in zip(streams, (prediction.plain, prediction.denoising), strict=True):
        for feature, value in zip(stream, wanted, strict=True):
            assert relative_error(feature.permute(0, 2, 3, 1), value) <= TOLERANCE


@pytest.mark.parametrize(
    ("encoder", "teacher"),
    [("tiny_vit_5m", "vit_h"), ("tiny_vit_demo", "demo"), ("tiny_vit_test", "vit_tiny")],
)
def test_widths_come_from_the_tensors(encoder, teacher):
    model = build_stlm(small_config(encoder, teacher))
    shapes = used_shapes(variable_shapes(model))
    widths = Widths.of({name: torch.empty(shape) for name, shape in shapes.items()})
    variant = SAM_VARIANTS[teacher]
    assert (widths.channels, widths.decoder_mlp_dim, widths.segmentation_channels) == (
        variant.channels,
        variant.decoder_mlp_dim,
        128,
    )
    for name, expected in ENCODERS[encoder].items():
        actual = getattr(widths, name)
        if name in ("heads", "windows"):  # the first stage has none
            actual, expected = actual[1:], expected[1:]
        assert actual == expected, name
    if encoder == "tiny_vit_5m":
        assert widths == Widths()


def save(tensors, path):
    if path.suffix == ".safetensors":
        safetensors.save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    else:
        torch.save(tensors, path)


def assert_holds(model, tensors):
    assert not model.training
    for name, value in model.state_dict().items():
        if not UNUSED.search(name):
            assert value.dtype == torch.float32
            assert torch.equal(value, tensors[name].float()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_loads_one_file(tensors, tmp_path, suffix, dtype):
    path = tmp_path / f"stlm{suffix}"
    stored = {name: x.to(dtype) for name, x in tensors.items()}
    save(stored, path)
    assert_holds(TorchStlm.load(path), stored)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_loads_the_published_pair(tensors, tmp_path, suffix):
    paths = [tmp_path / f"{layout}{suffix}" for layout in LAYOUTS]
    for half, path in zip(split(tensors), paths, strict=True):
        save(half, path)
    assert_holds(TorchStlm.load(*paths), tensors)


def test_all_that_is_wrong_is_listed(tensors, tmp_path):
    wrong = dict(tensors)
    del wrong["encoderS.neck.2.weight"]
    wrong["model.mask_decoder.mask_tokens.weight"] = torch.zeros(3, 32)
    wrong["encoderS.layers.1.extra"] = torch.zeros(1)
    path = tmp_path / "stlm.pt"
    save(wrong, path)
    with pytest.raises(UserError) as error:
        TorchStlm.load(path)
    message = str(error.value)
    assert "\n" not in message
    for part in (str(path), "encoderS.neck.2.weight", "mask_tokens.weight", "layers.1.extra"):
        assert part in message


def test_a_two_stream_file_alone_asks_for_the_second(tensors, tmp_path):
    path = tmp_path / "two_stream.pth"
    save(split(tensors)[0], path)
    with pytest.raises(UserError, match=r"two_stream\.pth: .*segmentation"):
        TorchStlm.load(path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in the file was run')",)


@pytest.mark.parametrize("content", ["absent", "truncated", "code", "array"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_unreadable_files(tensors, tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    if content == "truncated":
        save(tensors, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "code":
        path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    elif content == "array":
        torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match=r"^[^\n]*bad[^\n]*$"):
        TorchStlm.load(path)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 64, 64, 3),
        torch.zeros(64, 64, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 64, 100, 3, dtype=torch.uint8),
    ],
)
def test_bad_images(weights_file, images):
    with pytest.raises(UserError, match="images"):
        TorchStlm.load(weights_file)(images)


def test_needs_no_jax(tmp_path):
    program = """
import sys
sys.modules.update(jax=None, flax=None)
import torch
from conversion.torch_stlm import TorchStlm, Widths
small = Widths((8, 16, 16, 32), (1, 1, 1, 1), (0, 2, 2, 4), (0, 7, 14, 7), 32, 64, 16)
torch.save(TorchStlm(small).state_dict(), sys.argv[1])
model = TorchStlm.load(sys.argv[1])
assert model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))["anomaly_map"].shape == (1, 64, 64)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "stlm.pt")], check=True)
