import jax
import numpy as np
import pytest
from flax import traverse_util

from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import RULES, random_variables


@pytest.fixture(scope="module")
def variables():
    model = build_stlm(default())
    return traverse_util.flatten_dict(random_variables(model, jax.random.key(0)), sep="/")


def test_deviations_follow_the_published_initialisation(variables):
    expected = {
        # Kaiming fan-out: sqrt(2 / (3 * 3 * 128))
        "params/segmentation/res_0/conv1/kernel": (2 / (9 * 128)) ** 0.5,
        # torch's convolution: U(±1/sqrt(fan in)), fan in 3 * 3 * 256
        "params/encoderT/neck/2/kernel": (1 / (3 * 9 * 256)) ** 0.5,
        # a depthwise convolution's fan in is its 3 * 3 window
        "params/encoderS/layers_0/blocks_0/conv2/c/kernel": (1 / 27) ** 0.5,
        "params/encoderT/layers_2/blocks_3/mlp/fc1/kernel": 0.02,
        "params/model/mask_decoder/transformer/layers_0/mlp/lin1/kernel": (1 / 768) ** 0.5,
        "params/model/prompt_encoder/pe_layer/positional_encoding_gaussian_matrix": 1.0,
    }
    for path, deviation in expected.items():
        tensor = variables[path]
        assert tensor.std() == pytest.approx(deviation, rel=0.1), path
        assert abs(tensor.mean()) < 0.15 * deviation, path


def test_norms_and_biases_start_as_published(variables):
    for path, tensor in variables.items():
        if path.endswith(("/bias", "/mean", "/attention_biases")):
            assert not tensor.any(), path
        elif path.endswith("/var"):
            assert (tensor == 1).all(), path
        elif path.endswith("/scale"):
            last_of_mbconv = "blocks" in path and "conv3/bn" in path
            assert (tensor == (0 if last_of_mbconv else 1)).all(), path


def test_no_two_tensors_share_their_numbers(variables):
    heads = [tuple(t.ravel()[:3]) for p, t in variables.items() if p.endswith("kernel")]
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("name", ["vit_tiny", "mobile_sam"])
def test_every_rule_serves_some_model(name):
    model = build_sam(name)
    variables = random_variables(model, jax.random.key(1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert len({pattern for pattern, *_ in RULES}) == len(RULES)


def test_same_key_same_weights():
    model = build_sam("vit_tiny")
    a, b, c = (random_variables(model, jax.random.key(seed)) for seed in (2, 2, 3))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(
        a["params"]["image_encoder"]["neck"]["0"]["kernel"],
        c["params"]["image_encoder"]["neck"]["0"]["kernel"],
    )
