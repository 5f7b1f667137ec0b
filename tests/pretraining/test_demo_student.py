"""The shipped student, and the script that makes it."""

import runpy

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from stlm_jax.commands import pretrain_demo_student
from stlm_jax.data.demo import texture
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.models.build import build_stlm
from stlm_jax.pretraining import good_images, images
from stlm_jax.runtime.exit_status import BAD_INPUT, exit_status
from stlm_jax.training.start import initial_student
from stlm_jax.weights.load import DEMO_STUDENT, DEMO_TEACHER, read_file

# With the shapes of tests/miniature.py, whose compiled programs then serve here, too.
TINY = (
    "--images=6",
    "--config.image_size=64",
    "--config.data.texture_count=4",
    "--config.train.steps=2",
    "--config.train.batch_size=2",
    "--config.pseudo.perlin_min_exponent=0",
    "--config.pseudo.perlin_max_exponent=5",
    "--config.student.encoder=tiny_vit_test",
    "--config.student.segmentation_channels=128",
    "--config.student.checkpoint=",
    "--config.student.init=random",
    "--config.teacher.name=vit_tiny",
    "--config.teacher.checkpoint=random",
    "--config.evaluate.batch_size=4",
)


def demo_config():
    return runpy.run_path("configs/demo.py")["get_config"]()


def run_script(folder, *more):
    command = [
        "pretrain_demo_student",
        f"--workdir={folder / 'run'}",
        f"--config.data.root={folder / 'images'}",
        f"--output={folder / 'student.safetensors'}",
        *TINY,
        *more,
    ]
    return exit_status(lambda: pretrain_demo_student.run(command), "stopped")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo_student")
    assert run_script(folder) == 0
    return folder


def test_asset_is_small_finite_and_half_precision():
    tensors = load_file(DEMO_STUDENT)
    assert DEMO_STUDENT.stat().st_size <= 6e6
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_the_demo_starts_from_the_asset():
    config = demo_config()
    started = initial_student(config, build_stlm(config), jax.random.key(5))
    shipped = read_file("demo_student").variables
    jax.tree.map(np.testing.assert_array_equal, started, shipped)


def test_the_asset_is_not_the_teacher():
    stlm, sam = read_file("demo_student").variables, read_file(DEMO_TEACHER).variables
    for stream in ("encoderT", "encoderS"):
        moved = stlm["params"][stream]["patch_embed"]["seq_0"]["c"]["kernel"]
        kernel = sam["params"]["image_encoder"]["patch_embed"]["seq_0"]["c"]["kernel"]
        assert np.abs(moved - kernel).max() > 1e-3


def test_no_photograph_of_a_demo_category_is_used():
    assert set(images.TRAINING_PHOTOGRAPHS).isdisjoint(f"{name}.png" for name in texture.DEFECTS)


def test_images_depend_on_seed_and_index_alone():
    photographs = images.read_photographs(images.TRAINING_PHOTOGRAPHS)
    one = good_images.draw_good_image(3, 7, photographs)
    assert one.shape == (256, 256, 3) and one.dtype == np.uint8 and one.std() > 1
    np.testing.assert_array_equal(one, good_images.draw_good_image(3, 7, photographs))
    for seed, index in ((4, 7), (3, 8)):
        assert (one != good_images.draw_good_image(seed, index, photographs)).any()


@pytest.mark.slow
def test_the_file_holds_what_was_trained(made):
    trained = load_trained(made / "run" / "mixed").variables
    written = read_file(made / "student.safetensors")
    assert written.metadata["kind"] == "stlm"
    jax.tree.map(
        lambda exact, half: np.testing.assert_array_equal(np.asarray(exact, np.float16), half),
        trained,
        written.variables,
    )


@pytest.mark.slow
def test_run_again_keeps_the_images_and_the_weights(made, capsys):
    picture = next((made / "images").rglob("*.png"))
    before = picture.stat().st_mtime_ns, (made / "student.safetensors").read_bytes()
    assert run_script(made) == 0
    assert "finished before, 2 steps" in capsys.readouterr().err
    assert before == (picture.stat().st_mtime_ns, (made / "student.safetensors").read_bytes())


def test_a_mistyped_key_is_one_line(tmp_path, capsys):
    assert run_script(tmp_path, "--config.train.step=3") == BAD_INPUT
    assert "train.step" in capsys.readouterr().err.strip().splitlines()[-1]
