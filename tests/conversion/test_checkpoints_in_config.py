"""`config.teacher.checkpoint` and `config.student.checkpoint`: converted files and torch files."""

import jax
import numpy as np
import pytest

from conversion import from_torch
from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.training.start import initial_student, load_teacher
from stlm_jax.weights.load import load_sam

torch = pytest.importorskip("torch")


@pytest.fixture(params=["torch file", "converted"])
def checkpoint(request, tmp_path):
    """Saves a state dict, converts it or not, and gives the path."""

    def save(state_dict, name):
        path = tmp_path / f"{name}.pt"
        torch.save(state_dict, path)
        if request.param == "converted":
            converted = tmp_path / f"{name}.safetensors"
            assert from_torch.main([str(path), str(converted)]) == 0
            return str(converted)
        return str(path)

    return save


def linear(state_dict, name):
    """The kernel of a published linear layer, (inputs, outputs)."""
    return state_dict[f"{name}.weight"].numpy().T


def test_teacher(checkpoint, tiny_config, tiny_sam):
    tiny_config.teacher.checkpoint = checkpoint(tiny_sam, "sam")
    sam, variables = load_teacher(tiny_config)
    qkv = variables["params"]["image_encoder"]["blocks_1"]["attn"]["qkv"]["kernel"]
    np.testing.assert_array_equal(qkv, linear(tiny_sam, "image_encoder.blocks.1.attn.qkv"))
    assert sam == build_sam("vit_tiny")


def test_a_sam_is_recognised(checkpoint, tiny_sam):
    sam, variables = load_sam(checkpoint(tiny_sam, "sam"))
    assert sam == build_sam("vit_tiny")
    table = variables["params"]["image_encoder"]["blocks_0"]["attn"]["rel_pos_h"]
    np.testing.assert_array_equal(table, tiny_sam["image_encoder.blocks.0.attn.rel_pos_h"])


def test_student_from_an_stlm_takes_everything(checkpoint, tiny_config, tiny_stlm):
    tiny_config.student.checkpoint = checkpoint(tiny_stlm, "stlm")
    tiny_config.student.map_init_scale = 0.1  # is for a random start
    params = initial_student(tiny_config, build_stlm(tiny_config), jax.random.key(0))["params"]
    for stream in ("encoderT", "encoderS"):
        actual = params[stream]["layers_2"]["blocks_0"]["mlp"]["fc1"]["kernel"]
        expected = linear(tiny_stlm, f"{stream}.layers.2.blocks.0.mlp.fc1")
        np.testing.assert_array_equal(actual, expected)
    expected = tiny_stlm["segmentation.head.4.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["segmentation"]["head_4"]["kernel"], expected)


@pytest.mark.parametrize("init", ["random", "mobile_sam"])
def test_student_from_a_sam_keeps_its_own_segmentation(golden, checkpoint, init):
    tensors = golden.state_dict(golden.load_manifest("mobile_sam"), seed=0)
    state_dict = {name: torch.from_numpy(np.asarray(x)) for name, x in tensors.items()}
    config = default()
    config.student.checkpoint = checkpoint(state_dict, "mobile_sam")
    config.student.init = init
    model = build_stlm(config)
    taken = initial_student(config, model, jax.random.key(0))
    config.student.checkpoint, config.student.init = "", "random"
    untouched = initial_student(config, model, jax.random.key(0))
    jax.tree.map(
        np.testing.assert_array_equal,
        taken["params"]["segmentation"],
        untouched["params"]["segmentation"],
    )
    tokens = taken["params"]["model"]["mask_decoder"]["mask_tokens"]["embedding"]
    np.testing.assert_array_equal(tokens, tensors["mask_decoder.mask_tokens.weight"])
    for stream in ("encoderT", "encoderS"):
        mean = taken["batch_stats"][stream]["patch_embed"]["seq_0"]["bn"]["mean"]
        published = tensors["image_encoder.patch_embed.seq.0.bn.running_mean"]
        assert np.array_equal(mean, published) == (init == "mobile_sam")


def refusal(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_teacher_of_another_variant_is_named(checkpoint, tiny_config, tiny_sam):
    tiny_config.teacher.name = "vit_b"
    tiny_config.teacher.checkpoint = checkpoint(tiny_sam, "sam")
    line = refusal(load_teacher, tiny_config)
    assert f"{tiny_config.teacher.checkpoint}: holds vit_tiny, but config.teacher.name is" in line
    assert "--config.teacher.name=vit_tiny" in line


def test_an_stlm_is_no_teacher(checkpoint, tiny_config, tiny_stlm):
    tiny_config.teacher.checkpoint = checkpoint(tiny_stlm, "stlm")
    assert "holds an STLM, not a SAM" in refusal(load_teacher, tiny_config)
    assert "holds an STLM, not a SAM" in refusal(load_sam, tiny_config.teacher.checkpoint)


def test_a_student_of_another_model(checkpoint, tiny_config, tiny_sam, tiny_stlm):
    tiny_config.student.checkpoint = checkpoint(tiny_sam, "sam")
    line = refusal(initial_student, tiny_config, build_stlm(tiny_config), jax.random.key(0))
    assert f"{tiny_config.student.checkpoint}: the weights are of another model" in line
    published = default()
    published.student.checkpoint = checkpoint(tiny_stlm, "stlm")
    line = refusal(initial_student, published, build_stlm(published), jax.random.key(0))
    assert f"{published.student.checkpoint}: the weights are of another model" in line


def test_a_damaged_or_strange_file_is_named(tmp_path, tiny_config):
    np.savez(tmp_path / "strange.npz", kernel=np.ones(3))
    (tmp_path / "text.pt").write_text("hello")
    for name in ("strange.npz", "text.pt", "absent.safetensors"):
        tiny_config.teacher.checkpoint = str(tmp_path / name)
        assert name in refusal(load_teacher, tiny_config)
