import sys

import numpy as np
import pytest
from PIL import Image

from stlm_jax.drawing import panel as panel_module
from stlm_jax.drawing.colours import ABOVE_THRESHOLD, GROUND_TRUTH, Scale, colours
from stlm_jax.drawing.panel import Layout, draw_panel
from stlm_jax.report.panels import write_panels
from stlm_jax.runtime.errors import UserError

matplotlib = pytest.importorskip("matplotlib")

TILE = 256
GREY = np.full((TILE, TILE, 3), 100, np.uint8)
NO_DEFECT = np.zeros((TILE, TILE), np.uint8)
DEFECT = NO_DEFECT.copy()
DEFECT[60:120, 80:200] = 1


def tiles_of(panel, count, height=TILE):
    layout = Layout(TILE, height)
    pixels = np.asarray(panel)
    return [
        pixels[layout.top : layout.top + height, layout.left(i) : layout.left(i) + TILE]
        for i in range(count)
    ]


def inferno(share):
    return np.array(matplotlib.colormaps["inferno"](share, bytes=True)[:3])


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 1.0])
def test_colours_are_on_a_fixed_scale(value):
    """A constant map has the colour of its value; per-image scaling would lose it."""
    panel = draw_panel(GREY, NO_DEFECT, np.full((16, 16), value), "a")
    _, _, heat, _ = tiles_of(panel, 4)
    assert np.abs(heat.astype(int) - inferno(value)).max() <= 1


def test_ends_of_the_scale_clip():
    map_ = np.zeros((TILE, TILE))
    map_[:, :100], map_[:, 100:200], map_[:, 200:] = -3.0, 0.4, 9.0
    panel = draw_panel(GREY, NO_DEFECT, map_, "a", scale=Scale(vmin=0.2, vmax=0.6))
    heat = tiles_of(panel, 4)[2]
    for column, share in ((50, 0.0), (150, 0.5), (250, 1.0)):
        assert np.abs(heat[:, column].astype(int) - inferno(share)).max() <= 1


@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.9, 0.0, 1.0, 3.5, -2.0])
def test_the_threshold_has_one_colour_whatever_it_is(threshold):
    """Half of the map at the threshold, one pixel a lot hotter: it must not rescale the others."""
    scale = Scale.of(threshold)
    map_ = np.full((TILE, TILE), threshold)
    map_[:, :100], map_[0, 255] = scale.vmin, scale.vmax + 5
    heat = tiles_of(draw_panel(GREY, None, map_, "a", scale=scale), 3)[1].astype(int)
    assert np.abs(heat[1:, 101:] - inferno(0.5)).max() <= 1
    assert np.abs(heat[:, :99] - inferno(0.0)).max() <= 1
    assert np.abs(heat[0, 255] - inferno(1.0)).max() <= 1


def test_on_either_side_of_the_threshold_the_scale_is_linear():
    scale = Scale.of(0.2)
    np.testing.assert_allclose(scale.share(np.array([0.1, 0.6, 1.0])), [0.25, 0.75, 1.0])
    assert scale.ticks == (0.0, 0.2, 1.0)
    assert Scale.of(None).ticks == (0.0, 0.5, 1.0)


def test_tiles_show_their_inputs():
    image = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), dtype=np.uint8)
    picture, truth, _, overlay = tiles_of(draw_panel(image, DEFECT, np.zeros((8, 8)), "a"), 4)
    np.testing.assert_array_equal(picture, image)
    np.testing.assert_array_equal(truth, DEFECT[..., None].repeat(3, axis=2) * 255)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(overlay[200:], grey[200:, :, None].repeat(3, axis=2))


def test_overlay_outlines_ground_truth_from_outside():
    overlay = tiles_of(draw_panel(GREY, DEFECT, np.zeros((8, 8)), "a"), 4)[3]
    outlined = (overlay == GROUND_TRUTH).all(axis=2)
    rows, columns = np.nonzero(outlined)
    assert (rows.min(), rows.max()) == (58, 121)
    assert (columns.min(), columns.max()) == (78, 201)
    assert not outlined[DEFECT > 0].any()
    assert outlined[59, 80:200].all() and outlined[120, 80:200].all()
    assert outlined[60:120, 79].all() and outlined[60:120, 200].all()
    assert (overlay[57, 80:200] == 33).all()  # a dark rim, for bright images


def test_a_good_image_has_no_outline():
    overlay = tiles_of(draw_panel(GREY, NO_DEFECT, np.zeros((8, 8)), "a"), 4)[3]
    np.testing.assert_array_equal(overlay, GREY)


def test_a_defect_of_one_pixel_survives_shrinking():
    mask = np.zeros((1024, 1024), np.uint8)
    mask[402, 801] = 1
    truth = tiles_of(draw_panel(GREY, mask, np.zeros((8, 8)), "a"), 4)[1]
    assert np.argwhere(truth[..., 0]).tolist() == [[100, 200]]


def test_threshold_outlines_the_map():
    map_ = np.zeros((TILE, TILE))
    map_[100:140, 50:90] = 0.5
    outlined = {}
    for threshold in (None, 0.49, 0.5):
        panel = draw_panel(GREY, None, map_, "a", scale=Scale(threshold=threshold))
        outlined[threshold] = (tiles_of(panel, 3)[2] == ABOVE_THRESHOLD).all(axis=2)
    assert not outlined[None].any()
    assert not outlined[0.5].any()
    square = np.zeros((TILE, TILE), bool)
    square[100:140, 50:90] = True
    square[102:138, 52:88] = False
    np.testing.assert_array_equal(outlined[0.49], square)


def test_hotter_is_more_opaque():
    image = np.full((TILE, TILE, 3), 255, np.uint8)
    kept = [
        tiles_of(draw_panel(image, None, np.full((4, 4), value), "a"), 3)[2][10, 10].astype(int)
        - inferno(value)
        for value in (0.25, 0.5, 1.0)
    ]
    expected = [(1 - 0.85 * v) * (255.0 - inferno(v)) for v in (0.25, 0.5, 1.0)]
    np.testing.assert_allclose(kept, expected, atol=1.5)


def test_sizes_and_aspect():
    image = np.zeros((128, TILE, 3), np.uint8)
    panel = draw_panel(image, NO_DEFECT, np.ones((8, 16)), "a")
    assert panel.size == Layout(TILE, 128).size(4)
    heat = tiles_of(panel, 4, height=128)[2]
    assert np.abs(heat.astype(int) - inferno(1.0)).max() <= 1
    wide = draw_panel(image, None, np.ones((8, 16)), "a", tile=512)
    assert wide.size == Layout(512, 256).size(3)


def test_title_and_score_are_printed_and_fit():
    bare = np.asarray(draw_panel(GREY, DEFECT, np.zeros((8, 8)), ""))
    titled = np.asarray(draw_panel(GREY, DEFECT, np.zeros((8, 8)), "bottle/crack/003", 0.75))
    long = np.asarray(draw_panel(GREY, DEFECT, np.zeros((8, 8)), "crack_" * 100, 0.75))
    layout = Layout(TILE, TILE)
    score = slice(layout.left(3) + 150, None)
    for panel in (titled, long):
        changed = (panel != bare).any(axis=2)
        assert changed[: layout.title_height].any()
        assert not changed[layout.title_height :].any()
    np.testing.assert_array_equal(titled[:, score], long[:, score])
    assert (titled[:, score] != bare[:, score]).any()


def test_files_are_named_after_images(tmp_path):
    names = ["bottle/crack/003", "../étage 7", "bottle_crack_003", "x" * 500]
    paths = write_panels(
        tmp_path / "new", np.stack([GREY] * 4), None, np.zeros((4, 8, 8)), names, [0, 0, 0, 1]
    )
    assert [path.name for path in paths] == [
        "bottle_crack_003.png",
        "_étage_7.png",
        "bottle_crack_003-2.png",
        "x" * 60 + ".png",
    ]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "new", *paths])
    with Image.open(paths[3]) as written:
        expected = draw_panel(GREY, None, np.zeros((8, 8)), names[3], 1)
        np.testing.assert_array_equal(np.asarray(written), np.asarray(expected))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": ["a"]}, "not {'images': 2, 'masks': 2, 'maps': 2, 'names': 1}"),
        ({"scores": [1.0]}, "'scores': 1"),
        ({"images": np.zeros((2, 8, 8, 3))}, r"image of a is float64 \(8, 8, 3\)"),
        ({"maps": np.full((2, 8, 8), np.nan)}, "map of a is not a finite"),
        ({"maps": np.zeros((2, 8, 8, 1))}, "map of a is not a finite"),
    ],
)
def test_malformed(changed, message, tmp_path):
    arguments = {
        "images": np.stack([GREY] * 2),
        "masks": np.stack([DEFECT] * 2),
        "maps": np.zeros((2, 8, 8)),
        "names": ["a", "b"],
    }
    with pytest.raises(ValueError, match=message):
        write_panels(tmp_path, **(arguments | changed))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"vmin": 1.0}, {"vmax": float("nan")}, {"threshold": 1.0}])
def test_an_unusable_scale(wrong):
    with pytest.raises(UserError, match="colour scale"):
        Scale(**wrong)


def test_tiles_that_no_caption_fits():
    with pytest.raises(UserError, match="tiles of 100"):
        draw_panel(GREY, None, np.zeros((8, 8)), "a", tile=100)


def test_the_colours_are_matplotlibs_and_need_none_of_it():
    shares = np.linspace(0, 1, 1001)
    expected = matplotlib.colormaps["inferno"](shares, bytes=True)[:, :3]
    np.testing.assert_array_equal(colours(shares), expected)
    assert colours(np.array([-1.0, 2.0])).tolist() == [expected[0].tolist(), expected[-1].tolist()]


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    panel_module._font.cache_clear()  # it ships the font
    with pytest.raises(UserError, match=r"stlm_jax\[report\]"):
        draw_panel(GREY, DEFECT, np.zeros((8, 8)), "a")
