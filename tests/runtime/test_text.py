"""Names of files for people and for files."""

import os

import pytest

from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.text import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ü 部品 <b>.png", "ü 部品 <b>.png"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\udce9.png"),
        ("a\nb\t.png", r"a\nb\t.png"),
        ("\x1b[31m", r"\x1b[31m"),
    ],
)
def test_a_name_is_shown_on_one_line(name, shown):
    assert printable(name) == shown
    shown.encode()


def test_text_with_any_name_can_be_written(tmp_path):
    path = write_atomically(tmp_path / "x", os.fsdecode(b"caf\xe9") + ",1\n")
    assert path.read_text(encoding="utf-8") == "caf\\udce9,1\n"
