"""Weights files say their format; one that is not known is named."""

import numpy as np
import pytest

from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.file import (
    FORMAT,
    open_safetensors,
    read_weights,
    write_safetensors,
    write_weights,
)

TENSOR = ("params/a/kernel", (2,), np.float32, lambda: np.ones(2))


def test_a_written_file_says_its_format(tmp_path):
    write_weights(tmp_path / "a", [TENSOR], {"kind": "stlm"})
    assert open_safetensors(tmp_path / "a")[1]["format_version"] == "1"


def test_a_file_of_the_last_release_says_none_and_is_read(tmp_path, capsys):
    metadata = {"format": FORMAT, "kind": "stlm", "layout": "", "version": "0.1.0"}
    write_safetensors(tmp_path / "old", [TENSOR], metadata)
    capsys.readouterr()
    assert read_weights(tmp_path / "old").variables["params"]["a"]["kernel"].tolist() == [1, 1]
    said = capsys.readouterr().err
    assert said.count("old: carries no digest of its weights") == said.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "2", "first", ""])
def test_another_format_is_named(tmp_path, number):
    metadata = {"format": FORMAT, "kind": "stlm", "format_version": number}
    write_safetensors(tmp_path / "new", [TENSOR], metadata)
    with pytest.raises(UserError, match=rf"new: written in format {number}, .*reads 1\): update"):
        read_weights(tmp_path / "new")
