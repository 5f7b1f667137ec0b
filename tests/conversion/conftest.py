import jax
import numpy as np
import pytest
from small_student import make_student

from conversion.to_torch import torch_tensors
from stlm_jax.config import default
from stlm_jax.models.build import build_sam, build_stlm
from stlm_jax.models.initialization import random_variables
from stlm_jax.weights.description import Calibration


def tiny_config():
    config = default()
    config.teacher.name = "vit_tiny"
    config.student.encoder = "tiny_vit_test"
    config.student.segmentation_channels = 16
    return config


@pytest.fixture(name="tiny_config")
def tiny_config_fixture():
    """A student and a teacher of a few thousand parameters."""
    return tiny_config()


@pytest.fixture(scope="session")
def tiny_stlm_variables():
    return random_variables(build_stlm(tiny_config()), jax.random.key(0))


@pytest.fixture(scope="session")
def traced(once):
    """A student that is calibrated, and its float32 graph as an `.onnx` without metadata."""
    ir = pytest.importorskip("onnx_ir")
    pytest.importorskip("jax2onnx")
    from conversion.onnx.graph import build_graph

    calibration = Calibration(0.5, 0.0625, 0.375, "held_out", 8)
    student = make_student(64, category="disc", calibration=calibration)

    def trace(folder):
        content = ir.to_proto(build_graph(student)).SerializeToString()
        (folder / "student.onnx").write_bytes(content)

    return student, (once("traced_once", trace) / "student.onnx").read_bytes()


def random_state_dict(variables, seed):
    """Random torch tensors of the published names and shapes, known-unused ones too."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(np.asarray(rng.standard_normal(tensor.shape) * 9, tensor.dtype))
        for name, tensor in torch_tensors(variables).items()
    }


@pytest.fixture(scope="session")
def tiny_sam():
    """The state dict of a `vit_tiny`; do not change it."""
    return random_state_dict(random_variables(build_sam("vit_tiny"), jax.random.key(0)), 1)


@pytest.fixture(scope="session")
def tiny_stlm(tiny_stlm_variables):
    """The state dict, layout `stlm`, of `tiny_config`'s student; do not change it."""
    return random_state_dict(tiny_stlm_variables, 2)


@pytest.fixture
def one_line_of_error(capsys):
    """Checks that a command failed with status 2 and one line, and returns the line."""

    def check(status):
        out, err = capsys.readouterr()
        assert status == 2, (out, err)
        assert err.startswith("error: ") and err.count("\n") == 1, err
        return err

    return check
