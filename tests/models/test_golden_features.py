"""Parity with what the published PyTorch code computed, through the torch-name loader."""

import jax
import numpy as np
import pytest
from golden_vectors import sam_variables, stlm_variables

from stlm_jax.config import default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.segmentation import cosine_distance_map
from stlm_jax.runtime.compilation import jit

TOLERANCE = 1e-4
pytestmark = pytest.mark.usefixtures("highest_precision")


def subsample(features):
    return np.asarray(features).transpose(0, 3, 1, 2)[:, ::16, ::8, ::8]


def statistics(features):
    x = np.asarray(features, np.float64)
    return np.array([x.mean(), x.std(), np.linalg.norm(x), np.abs(x).max()])


@pytest.mark.parametrize(
    ("layout", "name", "image_seed"), [("mobile_sam", "mobile_sam", 0), ("sam_vit_b", "vit_b", 1)]
)
def test_teacher_features(golden, relative_error, layout, name, image_seed):
    sam = build_sam(name)
    # On the device alone: the weights are 0.4 GB.
    variables = jax.device_put(
        sam_variables(golden.state_dict(golden.load_manifest(layout), seed=0), sam)
    )
    features = jit(sam.apply)(variables, golden.image(1024, 1024, image_seed))
    with np.load(golden.folder / f"{layout}_1024.npz") as expected:
        for level, feature in enumerate(features, 1):
            name = f"feature{level}"
            assert relative_error(subsample(feature), expected[name]) <= TOLERANCE
            assert relative_error(statistics(feature), expected[f"{name}_stats"]) <= TOLERANCE


@pytest.fixture(scope="module")
def published_stlm(golden):
    model = build_stlm(default())
    state_dicts = [
        golden.state_dict(golden.load_manifest(name), seed=0)
        for name in ("stlm_twostream", "stlm_segmentation")
    ]
    return model, stlm_variables(*state_dicts, model)


def test_two_stream_maps_and_scores(golden, relative_error, published_stlm):
    model, variables = published_stlm
    predict = make_predict_fn(default(), model)

    @jit
    def both(variables, image):
        return predict(variables, image, (1024, 1024)), model.apply(variables, image)

    # One by one: in evaluation images do not know of each other, and it takes half the memory.
    images = golden.image(1024, 1024, 2, batch=2)
    results = [jax.device_get(both(variables, image[None])) for image in images]
    result, prediction = jax.tree.map(lambda *x: np.concatenate(x), *results)
    without_fa = cosine_distance_map(prediction.plain, prediction.denoising)
    with np.load(golden.folder / "stlm_eval_1024.npz") as expected:
        for stream, name in ((prediction.plain, "plain"), (prediction.denoising, "denoise")):
            for level, feature in enumerate(stream, 1):
                assert relative_error(subsample(feature), expected[f"{name}{level}"]) <= TOLERANCE
        assert relative_error(prediction.map, expected["fa"][:, 0]) <= TOLERANCE
        assert relative_error(without_fa, expected["tlm"][:, 0]) <= TOLERANCE
        assert relative_error(result["score"], expected["image_score"]) <= TOLERANCE


def test_parameter_count_is_the_published_one(published_stlm):
    _, variables = published_stlm
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert round(parameters / 1e6, 2) == 16.65
