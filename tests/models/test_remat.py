"""What `config.remat` changes (memory) and what it does not (all else)."""

import jax
import numpy as np
import pytest

from stlm_jax.models.tiny_vit import Stage
from stlm_jax.runtime.program_memory import bytes_of


@pytest.fixture(scope="module", params=[0, 2], ids=["convolutions", "attention"])
def objectives(request):
    """By `remat`: a scalar of a stage in training, with its new running statistics; and inputs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 24, 24, 16), np.float32)
    direction = rng.standard_normal((2, 12, 12, 8), np.float32)

    def of(remat):
        stage = Stage(depth=2, heads=request.param, window=7, features_out=8, stride=2, remat=remat)

        def objective(params, batch_stats):
            variables = {"params": params, "batch_stats": batch_stats}
            y, changed = stage.apply(variables, x, True, mutable=["batch_stats"])
            return (y * direction).mean(), changed

        return stage, objective

    stage, kept = of("none")
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0), x, False))
    variables = jax.tree.map(
        lambda leaf: np.float32((leaf.ndim == 1) + 0.3 * rng.standard_normal(leaf.shape)), shapes
    )
    inputs = variables["params"], variables["batch_stats"]
    return {"none": kept, **{how: of(how)[1] for how in ("products", "blocks")}}, inputs


def test_gradients_and_statistics_are_the_same(objectives, relative_error):
    functions, inputs = objectives
    all_kept, *others = (jax.jit(jax.grad(f, has_aux=True))(*inputs) for f in functions.values())
    for other in others:
        for kept, anew in zip(all_kept, other, strict=True):  # gradients, statistics
            assert jax.tree.structure(anew) == jax.tree.structure(kept)
            a, b = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (anew, kept))
            assert relative_error(a, b) <= 3e-6  # float32: computed anew it is fused otherwise


def test_less_is_kept_for_the_gradient(objectives):
    """XLA's CPU compiler merges what is computed anew: what jax asks it to keep is looked at."""
    functions, inputs = objectives

    def kept(function):
        residuals = jax.eval_shape(lambda p, s: jax.vjp(lambda q: function(q, s)[0], p)[1], *inputs)
        return bytes_of(residuals) - bytes_of(inputs)

    none, products, blocks = (kept(functions[how]) for how in ("none", "products", "blocks"))
    assert 0 < blocks < 0.3 * none
    assert blocks < products < 0.6 * none
