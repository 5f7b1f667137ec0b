import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from small_results import CALIBRATION, MOST_WRONG_FIRST, SCORES, category, image

from stlm_jax.drawing.colours import Scale
from stlm_jax.evaluation.results import most_wrong_first, verdict
from stlm_jax.report.gallery import panel

matplotlib = pytest.importorskip("matplotlib")

STYLE = Scale.of(CALIBRATION.pixel_threshold)


def pixels(tile):
    kind, _, encoded = tile.source.partition(",")
    assert kind in ("data:image/webp;base64", "data:image/png;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def test_misses_and_false_alarms_come_first_and_the_worst_of_them_before_the_others():
    ordered = most_wrong_first(category().images, CALIBRATION)
    verdicts = [verdict(one, CALIBRATION) for one in ordered]
    assert [one.name for one in ordered[:3]] == MOST_WRONG_FIRST
    assert verdicts[:3] == ["miss", "false alarm", "miss"]
    assert verdicts[3:] == ["right"] * 6
    # 0.5 is at the threshold, which is not above it; then by how little they are right.
    assert [one.score for one in ordered[3:]] == [0.5, 0.6, 0.3, 0.2, 0.8, 0.9]


def test_the_order_does_not_depend_on_the_order_of_the_images():
    images = category().images
    same_score = [dataclasses.replace(one, score=0.5) for one in images]
    for some in (images, same_score):
        forwards, backwards = (most_wrong_first(i, CALIBRATION) for i in (some, some[::-1]))
        assert [one.name for one in forwards] == [one.name for one in backwards]


def test_without_a_threshold_the_least_telling_scores_come_first():
    ordered = most_wrong_first(category().images, None)
    of_kind = {label: [o.score for o in ordered if o.label == label] for label in (False, True)}
    assert of_kind[True] == sorted(SCORES["crack"] + SCORES["stain"])
    assert of_kind[False] == sorted(SCORES["good"], reverse=True)
    assert {verdict(one, None) for one in ordered} == {""}


def test_tiles_show_the_image_its_truth_and_the_map_in_the_models_colours():
    one = image("crack/000", 0.9)
    shown = panel(one, CALIBRATION, STYLE)
    picture, truth, heat, overlay = shown.tiles
    assert (shown.width, shown.height) == one.picture.shape[1::-1]
    assert np.abs(pixels(picture).astype(int) - one.picture).mean() < 4  # lossy
    np.testing.assert_array_equal(pixels(truth)[..., 0] > 0, one.mask)
    inferno = matplotlib.colormaps["inferno"](TwoSlopes()(one.map), bytes=True)[..., :3]
    assert np.abs(pixels(heat).astype(int) - inferno).mean() < 4
    grey = np.asarray(Image.fromarray(one.picture).convert("L"))
    cold = one.map < 1e-3
    assert np.abs(pixels(overlay)[..., 1].astype(int) - grey)[cold].mean() < 6
    assert shown.normalised == pytest.approx(1 / (1 + np.exp(-4)))
    assert all(one.name in tile.alt for tile in shown.tiles)


class TwoSlopes:
    def __init__(self):
        from matplotlib.colors import TwoSlopeNorm

        self.norm = TwoSlopeNorm(CALIBRATION.pixel_threshold, 0.0, 1.0)

    def __call__(self, values):
        return self.norm(values)


@pytest.mark.parametrize(
    ("name", "has_truth", "text"),
    [
        ("good/000", True, "no defect"),
        ("good/000", False, "no defect"),
        ("crack/000", False, "not known"),
    ],
)
def test_where_there_is_no_mask_the_tile_says_why(name, has_truth, text):
    truth = panel(image(name, 0.5, has_truth), CALIBRATION, STYLE).tiles[1]
    assert (truth.source, truth.text) == ("", text)
    assert text in truth.alt


def test_an_oblong_image_keeps_its_shape():
    shown = panel(image("crack/000", 0.9, size=(30, 48)), CALIBRATION, STYLE)
    assert (shown.width, shown.height) == (48, 30)
    assert {pixels(tile).shape for tile in shown.tiles} == {(30, 48, 3)}
