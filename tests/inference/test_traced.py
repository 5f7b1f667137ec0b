"""A prediction's trace is kept: a second start traces nothing and finds the very same numbers."""

import jax
import numpy as np
import pytest

from stlm_jax.config import default
from stlm_jax.inference import traced
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import random_variables, variable_shapes

SIZE = 64


@pytest.fixture
def folder(tmp_path):
    """Where programs are kept."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


def small(top_k=100, encoder="tiny_vit_test"):
    config = default()
    config.image_size, config.teacher.name, config.student.encoder = SIZE, "vit_tiny", encoder
    config.evaluate.score_top_k = top_k
    return config, build_stlm(config)


def kept(folder):
    return sorted(folder.glob("traced-*.gz"))


def refuse(*_, **__):
    raise AssertionError("the model is traced")


def test_what_is_kept_says_what_the_model_says(folder, monkeypatch):
    config, model = small()
    variables = random_variables(model, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    expected = jax.jit(make_predict_fn(config, model), static_argnums=2)(
        variables, images, (SIZE, SIZE)
    )
    traced.prediction(config, model)
    traced._read.cache_clear()  # as in another process
    monkeypatch.setattr(traced, "variable_shapes", refuse)
    monkeypatch.setattr(traced, "make_predict_fn", refuse)
    assert traced.shapes(config, model) == variable_shapes(model)
    found = traced.prediction(config, model).predict(variables, images)
    assert list(found) == ["map", "score"]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
    assert len(kept(folder)) == 1


def test_another_prediction_is_traced_anew(folder, monkeypatch):
    traced.prediction(*small())
    (first,) = kept(folder)
    for number, other in enumerate((small(top_k=7), small(encoder="tiny_vit_demo")), 2):
        traced.prediction(*other)
        assert len(kept(folder)) == number
        assert traced.shapes(*other) == variable_shapes(other[1])
    with jax.default_matmul_precision("highest"):
        assert traced._file(*small()) not in kept(folder)
    assert traced._file(*small()) == first
    monkeypatch.setattr(traced, "_sources", lambda: "changed")
    assert traced._file(*small()) not in kept(folder)


def test_damage_and_a_folder_that_cannot_be_written_cost_time_only(folder):
    config, model = small()
    traced.prediction(config, model)
    (file,) = kept(folder)
    content = file.read_bytes()
    flipped = bytes([content[len(content) // 2] ^ 1])
    for damaged in (
        b"", b"no gzip", content[:-9],
        content[: len(content) // 2] + flipped + content[len(content) // 2 + 1 :],
    ):  # fmt: skip
        file.write_bytes(damaged)
        assert traced._kept(file) is None
    traced.prediction(config, model)
    assert traced._kept(file).variables == variable_shapes(model)  # whole again
    file.unlink()
    folder.rmdir()
    folder.write_bytes(b"a file in the place of the folder")
    assert traced.prediction(config, model).variables == variable_shapes(model)
