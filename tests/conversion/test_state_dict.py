"""Whether a `.pt` keeps what it says of its model on its way through PyTorch."""

import copy
import pickle
from collections import OrderedDict

import pytest
from small_student import make_student

from conversion.to_torch import torch_tensors, write_state_dict
from stlm_jax.inference.trained_model import load_trained
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.description import Calibration, export_metadata
from stlm_jax.weights.names import UNUSED

torch = pytest.importorskip("torch")

from conversion.torch_stlm import TorchStlm, Widths  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A student and its `.pt`."""
    calibration = Calibration(0.25, 0.0625, 0.5, "held_out", 8)
    student = make_student(64, category="disc", calibration=calibration)
    path = tmp_path_factory.mktemp("written") / "disc.pt"
    description = export_metadata(student.description, student.variables, "float32")
    write_state_dict(path, torch_tensors(student.variables), description)
    return student, path


def through_a_model(state_dict):
    """As a training script saves it: loaded into the published modules, and taken from them."""
    used = {name: x for name, x in state_dict.items() if not UNUSED.search(name)}
    model = TorchStlm(Widths.of(used))
    model.load_state_dict(used, strict=True)
    return model.state_dict()


KEPT = {
    "as it was loaded": lambda state_dict: state_dict,
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "pickled": lambda state_dict: pickle.loads(pickle.dumps(state_dict)),
    "in a checkpoint": lambda state_dict: {"state_dict": state_dict, "epoch": 3},
}
LOST = {
    "a dict of it": dict,
    "an OrderedDict of it": OrderedDict,
    "its own copy()": lambda state_dict: state_dict.copy(),
    "of a model": through_a_model,
}


@pytest.mark.parametrize("way", KEPT)
def test_these_ways_keep_it(written, tmp_path, way):
    student, path = written
    torch.save(KEPT[way](torch.load(path, weights_only=True)), tmp_path / "again.pt")
    assert load_trained(tmp_path / "again.pt").description == student.description


@pytest.mark.parametrize("way", LOST)
def test_these_lose_it_and_nothing_is_guessed(written, tmp_path, way, capsys):
    _, path = written
    again = tmp_path / "again.pt"
    torch.save(LOST[way](torch.load(path, weights_only=True)), again)
    with pytest.raises(UserError, match=r"again\.pt: does not say at which image size"):
        load_trained(again)
    assert load_trained(again, image_size=64).calibration is None
    assert "its thresholds are not known; its scores are not judged" in capsys.readouterr().err


def test_an_entry_for_it_would_break_strict_loading(written):
    _, path = written
    state_dict = torch.load(path, weights_only=True)

    class Published(torch.nn.Module):
        """Modules of any names that parameters of these names need."""

        def __init__(self, tensors):
            super().__init__()
            for name, tensor in tensors.items():
                *rooms, last = name.split(".")
                module = self
                for room in rooms:
                    if room not in module._modules:
                        module.add_module(room, torch.nn.Module())
                    module = module._modules[room]
                module.register_buffer(last, torch.empty_like(tensor))

    model = Published(state_dict)
    model.load_state_dict(state_dict, strict=True)
    state_dict["stlm_jax"] = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(state_dict, strict=True)
