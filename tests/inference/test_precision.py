"""`config.precision` in what is traced, and in the process that a command runs in."""

import jax
import numpy as np
import pytest
from miniature import write_config

from stlm_jax.config import default
from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError


def products(program):
    """The precisions of all matrix products and convolutions, in the bodies of calls too."""
    for equation in program.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for body in jax.core.jaxprs_in_params(equation.params):
            yield from products(body)


@pytest.mark.parametrize("name", ["default", "high", "highest"])
def test_all_products_of_a_prediction_have_it(name):
    config = default()
    config.teacher.name, config.student.encoder = "vit_tiny", "tiny_vit_test"
    config.precision = name
    model = build_stlm(config)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    predict = make_predict_fn(config, model)
    program = jax.make_jaxpr(predict, static_argnums=2)(variable_shapes(model), image, (64, 64))
    highest = (jax.lax.Precision.HIGHEST,) * 2  # of what always needs it, such as resizing
    expected = {"default": None, "high": (jax.lax.Precision.HIGH,) * 2, "highest": highest}[name]
    found = list(products(program.jaxpr))
    assert set(found) == {expected, highest} and found.count(expected) > 50


@pytest.mark.parametrize(("name", "expected"), [("default", None), ("highest", "highest")])
def test_a_command_sets_it_for_its_process(tmp_path, monkeypatch, name, expected):
    seen = []

    def train(config, workdir, command):
        seen.append(jax.config.jax_default_matmul_precision)
        raise UserError("seen")

    monkeypatch.setattr("stlm_jax.training.train.train", train)
    before = jax.config.jax_default_matmul_precision
    config = write_config(tmp_path / "tiny.py", tmp_path / "data")
    try:
        command = ["main", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
        assert main([*command, f"--config.precision={name}"]) != 0
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert seen == [expected]
