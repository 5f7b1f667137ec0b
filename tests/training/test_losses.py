import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stlm_jax.training import losses

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def arrays(golden):
    with np.load(golden.folder / "losses.npz") as file:
        return {name: file[name] for name in file.files}


def test_cosine(arrays):
    actual = losses.cosine_loss([arrays["map0"], arrays["map1"]], [True, True])
    assert actual == pytest.approx(float(arrays["cosine"]), rel=TOLERANCE)


def test_what_is_not_guided_costs_nothing(arrays):
    maps = [arrays["map0"], arrays["map1"]]
    assert losses.cosine_loss(maps, [False, True]) == pytest.approx(maps[1].mean(), rel=TOLERANCE)


def test_cosine_distance_by_hand():
    a = jnp.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    b = jnp.array([[3.0, 4.0], [0.0, 2.0], [-1.0, -1.0]])
    np.testing.assert_allclose(losses.cosine_distance(a, b), [0.0, 1.0, 2.0], atol=1e-6)


def test_focal(arrays):
    actual = losses.focal_loss(arrays["pred"], arrays["mask"], 4.0)
    assert actual == pytest.approx(float(arrays["focal_gamma4"]), rel=TOLERANCE)


def test_focal_is_finite_where_the_sigmoid_saturates():
    prediction, target = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(losses.focal_loss)(prediction, target, 4.0)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value > 1.0


def test_l1(arrays):
    actual = losses.l1_loss(arrays["pred"], arrays["mask"])
    assert actual == pytest.approx(float(arrays["l1"]), rel=TOLERANCE)


@pytest.mark.parametrize(("side", "share"), [(4, 0.095), (8, 0.32), (12, 0.66), (16, 0.995)])
def test_small_squares_survive_the_reduction_as_often_as_published(side, share):
    rng = np.random.default_rng(side)
    corners = rng.integers(0, 1024 - side, (200, 2))
    masks = np.zeros((200, 1024, 1024), np.uint8)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = 1
    reduce = jax.jit(lambda m: losses.reduce_mask(m, (64, 64)).any((1, 2)))
    survived = np.concatenate([reduce(masks[i : i + 20]) for i in range(0, 200, 20)])
    assert survived.mean() == pytest.approx(share, abs=0.1)


def test_mask_reduction_is_torchs():
    torch = pytest.importorskip("torch")
    mask = (np.random.default_rng(0).random((2, 96, 160)) > 0.6).astype(np.float32)
    expected = (
        torch.nn.functional.interpolate(
            torch.from_numpy(mask)[:, None], size=(6, 10), mode="bilinear", align_corners=False
        )[:, 0]
        >= 0.5
    )
    np.testing.assert_array_equal(losses.reduce_mask(mask, (6, 10)), expected.numpy())
