"""Defects drawn into held-out images: exact masks, the same for all models, unlike training's."""

import itertools
import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.data.records import Record
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.evaluation import pseudo_defects, pseudo_textures
from stlm_jax.evaluation.pseudo_defects import KINDS, VISIBLE, add_defect
from stlm_jax.evaluation.pseudo_validation import (
    GOOD,
    VARIANTS,
    examples,
    good_images,
    measure,
)
from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.runtime.errors import UserError

SIDES = (64, 128)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A category of ten good images with edges, shades and noise, and one to test on."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(1)
    for place in [f"train/good/{i:03}" for i in range(10)] + ["test/good/000", "test/spot/000"]:
        path = folder / "disc" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng, 150, 200)).save(path)
    mask = folder / "disc/ground_truth/spot/000_mask.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.eye(200, dtype=np.uint8)[:150] * 255).save(mask)
    return folder


def picture(rng, height, width):
    rows, columns = np.mgrid[:height, :width]
    shade = 120 + 60 * np.sin(rows / 17 + rng.uniform(0, 6)) * np.cos(columns / 11)
    disc = 50.0 * (np.hypot(rows - height / 2, columns - width / 2) < height / 3)
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip((shade + disc)[..., None] + noise, 0, 255).astype(np.uint8)


def config_of(root, **values):
    config = default()
    config.image_size = 128
    config.data.root, config.data.categories = str(root), ("disc",)
    config.calibration.held_out = 0.3
    config.update_from_flattened_dict(values)
    return config


@pytest.fixture(scope="module")
def drawn(root):
    config = config_of(root)
    return list(examples(config, good_images(config, "disc")))


# --- masks ---


@pytest.mark.parametrize(("kind", "side"), itertools.product(KINDS, SIDES))
def test_a_mask_is_where_the_image_changed_visibly(kind, side):
    image = picture(np.random.default_rng(3), side, side)
    kinds = []
    for seed in range(6):
        defect = add_defect(image, kind, np.random.default_rng(seed))
        difference = np.abs(defect.pixels.astype(int) - image).max(-1)
        assert defect.pixels.dtype == np.uint8 and defect.mask.dtype == bool
        assert (difference[~defect.mask] == 0).all()  # nothing outside
        seen = difference >= VISIBLE
        assert (difference[defect.mask] > 0).all()
        assert seen[defect.mask].mean() >= 0.5
        # What did not change visibly is a gap between pixels that did.
        far = ndimage.distance_transform_edt(~seen)
        assert far[defect.mask].max() <= 2 * max(1, round(side / 128))
        _, regions = ndimage.label(defect.mask, np.ones((3, 3)))
        assert 1 <= regions and 9 <= defect.mask.sum() <= 0.2 * side**2
        kinds.append(defect.kind)
    assert kinds.count(kind) >= 4  # else a line was drawn in its place


def test_where_a_kind_shows_nothing_another_is_drawn():
    """A twisted, even image is itself."""
    even = np.full((64, 64, 3), 128, np.uint8)
    defect = add_defect(even, "twist", np.random.default_rng(0))
    assert defect.kind == "stroke" and defect.mask.any()


def test_an_unseen_change_is_put_back():
    before = np.full((64, 64, 3), 100, np.uint8)
    after = before.copy()
    after[10:20, 10:20] += VISIBLE
    after[10:20, 20:30] += VISIBLE - 1  # touches it, and cannot be seen
    after[40, 40] += 100  # a speck
    mask, _ = pseudo_defects._changed(before, after)
    expected = np.zeros((64, 64), bool)
    expected[10:20, 10:20] = True
    np.testing.assert_array_equal(mask, expected)


# --- the examples ---


def test_each_held_out_image_is_shown_as_good_and_with_defects(root, drawn):
    config = config_of(root)
    held_out = [r.image.stem for r in dataset.split_of(config, "disc", "held_out")]
    assert [e.name for e in drawn] == [name for name in held_out for _ in range(1 + VARIANTS)]
    assert len(held_out) == 3
    for first in range(0, len(drawn), 1 + VARIANTS):
        good, *others = drawn[first : first + 1 + VARIANTS]
        assert good.kind == GOOD and not good.mask.any()
        assert len({e.kind for e in others}) >= 3
        for example in others:
            changed = (example.view.pixels != good.view.pixels).any(-1)
            np.testing.assert_array_equal(changed, example.mask)


def test_examples_depend_on_the_image_and_the_variant_alone(root, drawn):
    """Not on the seed, what is trained, or how often they are drawn."""
    records = good_images(config_of(root), "disc")
    other = {
        "seed": 1,
        "data.texture_count": 7,
        "pseudo.beta_max": 0.1,
        "student.init": "mobile_sam",
    }
    again = examples(config_of(root, **other), records)
    for ours, theirs in zip(again, drawn, strict=True):
        np.testing.assert_array_equal(ours.view.pixels, theirs.view.pixels)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    masks = [e.mask for e in drawn if e.kind != GOOD]
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_padding_is_never_changed(root):
    config = config_of(root, **{"data.geometry": "pad"})
    found = list(examples(config, good_images(config, "disc")))
    for example in found:
        left, top, right, bottom = example.view.box
        assert (right - left, bottom - top) == (128, 96) and example.mask.shape == (96, 128)
        outside = np.delete(example.view.pixels, slice(top, bottom), axis=0)
        assert (outside == 114).all()


def test_neither_training_nor_test_images_are_looked_at(root, monkeypatch):
    config, opened = config_of(root), []
    from stlm_jax.data import reader

    plain = reader.open_rgb
    monkeypatch.setattr(
        reader, "open_rgb", lambda p, *a: opened.append(pathlib.Path(p)) or plain(p, *a)
    )
    list(examples(config, good_images(config, "disc")))
    others = {
        r.image for split in ("train", "test") for r in dataset.split_of(config, "disc", split)
    }
    assert len(opened) == 3 and not others & set(opened)


def test_own_validation_images_come_first_and_none_is_refused(root, monkeypatch):
    with pytest.raises(UserError, match="--config.calibration.held_out=0.1"):
        good_images(config_of(root, **{"calibration.held_out": 0.0}), "disc")
    own = Record(root / "a.png", None, 0, "good", "disc", "validation")
    wrong = Record(root / "b.png", root / "m.png", 1, "bad", "disc", "validation")
    plain = dataset.scan

    def scan(config, category):
        listing = plain(config, category)
        listing.records.extend([own, wrong])
        return listing

    monkeypatch.setattr(dataset, "scan", scan)
    assert good_images(config_of(root), "disc") == [own]


# --- what is drawn is not what training draws ---


def test_no_texture_is_read_from_a_file(monkeypatch):
    """So that none can be of a bank, which is read from files."""

    def refused(*_, **__):
        raise AssertionError("a file was opened")

    for name in ("builtins.open", "io.open", "PIL.Image.open", "os.open"):
        monkeypatch.setattr(name, refused)
    image = picture(np.random.default_rng(3), 64, 64)
    for kind in KINDS:
        add_defect(image, kind, np.random.default_rng(0))


def test_no_texture_is_one_of_the_bank_of_photographs():
    """Normalised correlation with every place of each of them, by an independent way: skimage's."""
    match_template = pytest.importorskip("skimage.feature").match_template
    bank = read_texture_bank("", 24, 96, 0)
    for seed in range(12):
        texture = pseudo_textures.texture(np.random.default_rng(seed), 48, 48)
        assert texture.shape == (48, 48, 3) and texture.std(axis=(0, 1)).max() > 5
        assert 0 <= texture.min() and texture.max() <= 255
        for photograph in bank:
            found = match_template(photograph.mean(-1), texture.mean(-1))
            assert np.abs(found).max() < 0.9
    part = bank[0][10:58, 20:68].mean(-1)  # the measure finds what is there
    assert match_template(bank[0].mean(-1), part).max() > 0.999


# --- the measure ---


def test_the_measure_is_that_of_its_maps(root, drawn):
    """A model that sees how far a pixel is from grey, against scikit-learn's AUROC."""

    def maps_of(view):
        values = np.abs(view.pixels.astype(np.float32).mean(-1) - 128) / 128
        return ImageMaps(values, np.float32(values.max()))

    asked = []

    def predict(views):
        for view in views:
            asked.append(view)
            yield maps_of(view)

    result = measure(config_of(root), predict, "disc", "measure")
    maps = np.stack([maps_of(e.view).map for e in drawn])
    masks = np.stack([e.mask for e in drawn])
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert result["metrics"]["pixel_auroc"] == pytest.approx(expected, abs=1e-4)
    scores = maps.max(axis=(1, 2))
    expected = roc_auc_score([e.kind != GOOD for e in drawn], scores)
    assert result["metrics"]["image_auroc"] == pytest.approx(expected, abs=1e-9)
    assert (result["good"], result["anomalous"]) == (3, 3 * VARIANTS) and len(asked) == 15
    assert set(result["by_kind"]) == {e.kind for e in drawn} - {GOOD}


def test_a_model_that_knows_the_masks_is_perfect(root, drawn):
    def predict(views):
        for view, example in zip(views, drawn, strict=True):
            np.testing.assert_array_equal(view.pixels, example.view.pixels)
            yield ImageMaps(example.mask.astype(np.float32), np.float32(example.mask.max()))

    metrics = measure(config_of(root), predict, "disc", "measure")["metrics"]
    assert metrics == {name: pytest.approx(1.0) for name in metrics}
