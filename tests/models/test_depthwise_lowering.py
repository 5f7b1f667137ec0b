"""Which convolution an export traces."""

import jax
import jax.numpy as jnp
import numpy as np

from stlm_jax.models.layers import DepthwiseConv
from stlm_jax.models.norms import for_export


def test_exports_hold_one_grouped_convolution_for_all_platforms():
    layer = DepthwiseConv()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 4)), jnp.float32)
    variables = layer.init(jax.random.key(0), x)

    def traced():
        return jax.make_jaxpr(lambda v, x: layer.apply(v, x))(variables, x)

    usual = str(traced())
    assert "platform_index" in usual  # shifted products on CPU
    with for_export():
        exported = traced()
    (only,) = [e for e in exported.jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert only.params["feature_group_count"] == 4
    assert "platform_index" not in str(exported)
    assert str(traced()) == usual
