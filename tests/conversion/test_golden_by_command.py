"""The golden features, reached as a user does: convert, then name the file in the configuration."""

import jax
import numpy as np
import pytest

from conversion import from_torch
from stlm_jax.config import default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.training.start import load_teacher

torch = pytest.importorskip("torch")

TOLERANCE = 1e-4


def save(golden, layout, path):
    tensors = golden.state_dict(golden.load_manifest(layout), seed=0)
    torch.save({name: torch.from_numpy(np.asarray(x)) for name, x in tensors.items()}, path)
    return path


def statistics(features):
    x = np.asarray(features, np.float64)
    return np.array([x.mean(), x.std(), np.linalg.norm(x), np.abs(x).max()])


@pytest.mark.parametrize(
    ("layout", "name", "image_seed"),
    [
        ("mobile_sam", "mobile_sam", 0),
        pytest.param("sam_vit_b", "vit_b", 1, marks=pytest.mark.slow),
    ],
)
def test_teacher_features(golden, relative_error, tmp_path, layout, name, image_seed):
    source, converted = save(golden, layout, tmp_path / "a.pth"), tmp_path / "b.safetensors"
    assert from_torch.main([str(source), str(converted), f"--layout={layout}"]) == 0
    config = default()
    config.teacher.name, config.teacher.checkpoint = name, str(converted)
    sam, variables = load_teacher(config)
    features = jax.jit(sam.apply)(variables, golden.image(1024, 1024, image_seed))
    with np.load(golden.folder / f"{layout}_1024.npz") as expected:
        for level, feature in enumerate(features, 1):
            subsample = np.asarray(feature).transpose(0, 3, 1, 2)[:, ::16, ::8, ::8]
            assert relative_error(subsample, expected[f"feature{level}"]) <= TOLERANCE
            whole = statistics(feature)
            assert relative_error(whole, expected[f"feature{level}_stats"]) <= TOLERANCE


@pytest.mark.slow
def test_map_and_score_of_the_published_stlm(golden, relative_error, tmp_path):
    pair = [save(golden, f"stlm_{x}", tmp_path / f"{x}.pt") for x in ("twostream", "segmentation")]
    converted = tmp_path / "stlm.safetensors"
    assert from_torch.main([str(pair[0]), str(converted), f"--segmentation={pair[1]}"]) == 0
    trained = load_trained(converted, image_size=1024)
    image = golden.image(1024, 1024, 2, batch=2)
    predict = jax.jit(make_predict_fn(trained.config, trained.model), static_argnums=2)
    score = predict(trained.variables, image, (1024, 1024))["score"]
    prediction = jax.jit(trained.model.apply)(trained.variables, image)
    with np.load(golden.folder / "stlm_eval_1024.npz") as expected:
        assert relative_error(score, expected["image_score"]) <= TOLERANCE
        assert relative_error(prediction.map, expected["fa"][:, 0]) <= TOLERANCE
