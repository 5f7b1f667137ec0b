import jax
import jax.numpy as jnp
import numpy as np

from stlm_jax.config import default
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import random_variables


def small_model(dtype):
    config = default()
    config.dtype = dtype
    config.teacher.name, config.student.encoder = "vit_tiny", "tiny_vit_test"
    return build_stlm(config)


def test_bfloat16_keeps_float32_parameters_and_outputs(relative_error):
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    variables = random_variables(small_model("float32"), jax.random.key(0))
    exact = jax.jit(small_model("float32").apply)(variables, image)
    coarse = jax.jit(small_model("bfloat16").apply)(variables, image)
    shapes = jax.eval_shape(small_model("bfloat16").init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(coarse), strict=True):
        assert b.dtype == jnp.float32
        assert 0 < relative_error(b, a) < 0.05


def test_bfloat16_activations_are_bfloat16():
    model = small_model("bfloat16")
    variables = random_variables(model, jax.random.key(0))
    image = np.zeros((1, 64, 64, 3), np.uint8)
    jaxpr = jax.make_jaxpr(model.apply)(variables, image)
    products = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert products
    assert all(v.aval.dtype == jnp.bfloat16 for e in products for v in e.invars)
    softmax = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "exp"]
    assert all(e.invars[0].aval.dtype == jnp.float32 for e in softmax)
