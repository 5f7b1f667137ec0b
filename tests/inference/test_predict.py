"""Maps in the images' own size, whole, padded or by tiles, of a model that sees colours."""

import numpy as np
import pytest
from colour_model import SIZE, ColourPredictor, config_of, see_colours, smooth, write
from PIL import Image

from stlm_jax.data.images import ImageError
from stlm_jax.drawing.colours import ABOVE_THRESHOLD, Scale, draw_overlay
from stlm_jax.drawing.overlay import MapPictures
from stlm_jax.inference import Detector
from stlm_jax.inference.predict import predict_tiled, predict_whole
from stlm_jax.weights.description import Description


def read_map(pictures, folder):
    with Image.open(pictures.save(folder, "x")["map"]) as image:
        return np.asarray(image) / 65535


@pytest.mark.parametrize("geometry", ["squash", "pad"])
@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (150, 50), (40, 300)])
def test_maps_have_the_geometry_of_the_image(tmp_path, geometry, shape):
    image = smooth(*shape)
    config = config_of(geometry)
    ((index, pictures, scores),) = predict_whole(
        config, ColourPredictor(config), write(tmp_path, [image]), Scale()
    )
    assert index == 0
    np.testing.assert_allclose(read_map(pictures, tmp_path), image[..., 0] / 255, atol=0.03)
    assert scores["score"] == pytest.approx(image[..., 0].max() / 255, abs=0.03)
    assert scores["score_without_fa"] == pytest.approx(image[..., 1].max() / 255, abs=0.03)


def test_padding_does_not_count_in_the_score(tmp_path):
    dark = np.full((32, 64, 3), 10, np.uint8)  # padding is 114
    config = config_of("pad")
    ((_, _, scores),) = predict_whole(
        config, ColourPredictor(config), write(tmp_path, [dark]), Scale()
    )
    assert scores == pytest.approx({"score": 10 / 255, "score_without_fa": 10 / 255})


@pytest.mark.parametrize("shape", [(64, 64), (200, 300), (50, 170), (33, 20)])
def test_tiles_of_the_squares_size_lose_nothing(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    config = config_of(tile=SIZE)
    ((_, pictures, scores),) = predict_tiled(
        config, ColourPredictor(config), write(tmp_path, [image]), Scale()
    )
    if min(shape) >= SIZE:
        np.testing.assert_allclose(read_map(pictures, tmp_path), image[..., 0] / 255, atol=2e-5)
        for channel, kind in enumerate(("score", "score_without_fa")):
            largest = np.sort(image[..., channel].ravel())[-10:].mean() / 255
            assert scores[kind] == pytest.approx(largest, abs=1e-5)
    assert read_map(pictures, tmp_path).shape == shape


class OneMap(ColourPredictor):
    """As a model of one stream, or without FA: there is no other map."""

    def _batch(self, pixels):
        return {k: v for k, v in super()._batch(pixels).items() if not k.endswith("_without_fa")}


@pytest.mark.parametrize("tile", [0, SIZE])
def test_a_model_of_one_map_has_one_score(tmp_path, tile):
    image = smooth(100, 130)
    config = config_of(tile=tile)
    way = predict_tiled if tile else predict_whole
    ((_, pictures, scores),) = way(config, OneMap(config), write(tmp_path, [image]), Scale())
    assert scores == {"score": pytest.approx(image[..., 0].max() / 255, abs=0.03)}
    np.testing.assert_allclose(read_map(pictures, tmp_path), image[..., 0] / 255, atol=0.03)


def test_a_detail_that_squashing_loses_is_found_in_tiles(tmp_path):
    image = np.zeros((640, 640, 3), np.uint8)
    image[300:304, 500:504] = 255
    paths = write(tmp_path, [image])
    whole, tiled = config_of(), config_of(tile=64)
    ((_, _, squashed),) = predict_whole(whole, ColourPredictor(whole), paths, Scale())
    ((_, pictures, scores),) = predict_tiled(tiled, ColourPredictor(tiled), paths, Scale())
    assert squashed["score"] < 0.1 and scores["score"] == pytest.approx(1.0)
    rows, columns = np.nonzero(read_map(pictures, tmp_path) > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (300, 303, 500, 503)


def test_tiles_leave_out_what_cannot_be_read(tmp_path, capsys):
    paths = write(tmp_path, [smooth(80, 80), smooth(70, 90, 1)])
    paths[0].write_bytes(b"nothing")
    config = config_of(tile=SIZE, skip=True)
    found = list(predict_tiled(config, ColourPredictor(config), paths, Scale()))
    assert [index for index, _, _ in found] == [1]
    assert "1 of 2 images were left out" in capsys.readouterr().err
    config = config_of(tile=SIZE)
    with pytest.raises(ImageError, match=r"0\.png"):
        list(predict_tiled(config, ColourPredictor(config), paths, Scale()))


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_the_overlay_is_that_of_the_report_however_it_is_cut_into_bands(tmp_path, threshold):
    image = smooth(600, 20)
    values = smooth(600, 20, 1)[..., 0].astype(np.float32) / 255
    values[250:262] = 0.9  # over the end of a band
    scale = Scale.of(threshold)
    pictures = MapPictures(image.copy(), scale)
    pictures.add(0, values[:100])
    pictures.add(100, values[100:])
    with Image.open(pictures.save(tmp_path, "x")["overlay"]) as overlay:
        found = np.asarray(overlay)
    np.testing.assert_array_equal(found, draw_overlay(image, None, values, scale))
    assert (found == ABOVE_THRESHOLD).all(-1).any() == (threshold is not None)
    np.testing.assert_allclose(read_map(pictures, tmp_path), values, atol=1e-5)


@pytest.mark.parametrize("geometry", ["squash", "pad"])
def test_a_detector_pads_as_in_training(geometry):
    images = np.stack([smooth(96, 160), smooth(96, 160, 1)])

    def infer(squares):
        maps = see_colours(squares)[0]
        return {"map": maps, "score": maps.max((1, 2))}

    description = Description(image_size=SIZE, geometry=geometry, score_top_k=10)
    found = Detector(infer, description)(images)
    np.testing.assert_allclose(found.anomaly_map, images[..., 0] / 255, atol=0.03)
    np.testing.assert_allclose(found.score, images[..., 0].max((1, 2)) / 255, atol=0.03)
