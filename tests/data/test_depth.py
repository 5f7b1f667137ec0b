"""Images of more than eight bits: every bit is read, and one range holds for a whole model."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from miniature import write_config
from PIL import ExifTags, Image

from stlm_jax.commands import check_data
from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.data.images import read_image
from stlm_jax.data.records import Record
from stlm_jax.inference import Detector
from stlm_jax.main import main

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels
ALL = "0,65535"


def png16(path, pixels, exif=b""):
    """A 16-bit PNG, which PIL does not write but in grey: rows are stored unfiltered."""
    pixels = np.asarray(pixels, np.uint16)
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + (chunk(b"eXIf", exif) if exif else b"")
    body += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def camera(shape=(40, 50), seed=0, level=1800):
    """Twelve bits of a camera, in 16."""
    rng = np.random.default_rng(seed)
    wave = level * (1 + np.sin(np.arange(shape[1]) / 9)[None] / 3) + rng.normal(0, 60, shape)
    return np.clip(wave, 0, 4095).astype(np.uint16)


def expected(values, low, high):
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255)


def colours(channels):
    return np.random.default_rng(0).integers(0, 65536, (30, 40, channels), dtype=np.uint16)


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 1200), (300, 4095)])
def test_every_bit_of_colours_is_read(tmp_path, low, high):
    pixels = colours(3)
    pixels[:10] %= 4096
    got = read_image(png16(tmp_path / "a.png", pixels), None, f"{low},{high}")
    np.testing.assert_allclose(got, expected(pixels, low, high), atol=0.51)
    assert (np.rint(expected(pixels, low, high)) == got).mean() > 0.999


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_every_bit_of_a_tiff_is_read(tmp_path, byteorder, compression):
    tifffile = pytest.importorskip("tifffile")
    pixels = colours(3) % 4096
    try:
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=byteorder,
                         compression=compression)  # fmt: skip
    except (ImportError, ValueError, KeyError):
        pytest.skip("tifffile has no codec for it here")
    got = read_image(tmp_path / "a.tif", None, "0,4095")
    np.testing.assert_allclose(got, expected(pixels, 0, 4095), atol=0.51)


def test_alpha_lies_over_black_in_deep_images_too(tmp_path):
    pixels = colours(4)
    pixels[..., 3] = 65535
    pixels[5:9, :, 3] = 0
    for channels in (4, 2):
        own = pixels if channels == 4 else pixels[..., [0, 3]]
        got = read_image(png16(tmp_path / "a.png", own), None, ALL)
        values = pixels[..., :3] if channels == 4 else pixels[..., :1]
        wanted = np.broadcast_to(expected(values, 0, 65535), got.shape).copy()
        wanted[5:9] = 0
        np.testing.assert_allclose(got, wanted, atol=0.51)


@pytest.mark.parametrize("turned", range(1, 9))
def test_deep_images_are_turned_as_exif_says(tmp_path, turned):
    """As PIL turns the same image of eight bits."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    eight = colours(3).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "eight.png", exif=exif)
    wanted = read_image(tmp_path / "eight.png", None)
    assert wanted.shape == ((30, 40, 3) if turned < 5 else (40, 30, 3))
    deep = eight * np.uint16(257)
    got = read_image(png16(tmp_path / "deep.png", deep, exif.tobytes()[6:]), None, ALL)
    np.testing.assert_array_equal(got, wanted)
    grey = read_image(png16(tmp_path / "grey.png", deep[..., 0], exif.tobytes()[6:]), None, ALL)
    np.testing.assert_array_equal(grey, np.dstack([wanted[..., 0]] * 3))
    for options in ({}, {"compression": "tiff_lzw"}):
        Image.fromarray(deep[..., 0]).save(tmp_path / "grey.tif", exif=exif, **options)
        np.testing.assert_array_equal(read_image(tmp_path / "grey.tif", None, ALL), grey)


def test_a_hot_pixel_changes_itself_alone_and_dull_stays_dull(tmp_path):
    grey = camera()
    hot = grey.copy()
    hot[5, 5] = 65535
    plain, with_hot, dull = (
        read_image(png16(tmp_path / f"{name}.png", pixels), None, "900,2500").astype(int)
        for name, pixels in {"plain": grey, "hot": hot, "dull": grey // 2}.items()
    )
    assert with_hot[5, 5].tolist() == [255] * 3
    with_hot[5, 5] = plain[5, 5]
    np.testing.assert_array_equal(with_hot, plain)
    assert plain.mean() > 100 and dull.mean() < 30
    own = read_image(tmp_path / "hot.png", None, "file")
    assert own.mean() < 15  # as it was, and is with `file`


@pytest.mark.parametrize("depth", ["dtype", "file", "0,4095", "100,101"])
def test_images_of_eight_bits_are_read_as_ever(tmp_path, depth):
    pixels = np.random.default_rng(0).integers(9, 200, (6, 8, 3), dtype=np.uint8)
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", None, depth), pixels)


def test_the_range_of_the_training_images(tmp_path):
    grey = [camera(seed=seed) for seed in range(4)]
    grey[1][3, 4], grey[2][7, 7] = 65535, 0  # a hot pixel and a dead one
    paths = [png16(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate(grey)]
    records = [Record(path, None, 0, "good", "nut", "train") for path in paths]
    low, high = map(float, dataset.find_depth(default(), "nut", records).split(","))
    assert (low, high) == pytest.approx(np.quantile(grey, (0.001, 0.999)), rel=0.01)
    eight = tmp_path / "eight.png"
    Image.fromarray(grey[0].astype(np.uint8)).save(eight)
    records = [Record(eight, None, 0, "good", "nut", "train")]
    assert dataset.find_depth(default(), "nut", records) == "dtype"
    c = default()
    c.data.depth = "0,4095"
    assert dataset.find_depth(c, "nut", records) == "0,4095"


# --- by the command line ---


# The map of a model that was hardly trained stays off the ends of its range, and differs little
# between images: of one image scores are the same to SAME, of two they differ by more than OTHER.
SAME, OTHER = 1e-6, 3e-6
OPTIONS = ["--config.train.steps=2", "--config.student.map_init_scale=0.6",
           "--config.optimizer.head_learning_rate=0", "--config.optimizer.residual_learning_rate=0",
           "--config.evaluate.score_top_k=7"]  # fmt: skip


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory):
    """A run on 16-bit colours: its folder, and the folder of the data."""
    base = tmp_path_factory.mktemp("deep")
    root = base / "data/disc"
    for index in range(5):
        pixels = np.dstack([camera((70, 80), index)] * 3)
        png16(root / f"train/good/{index}.png", pixels)
        png16(root / f"test/good/{index}.png", pixels // 16 * 16)
    spot = np.dstack([camera((70, 80), 9)] * 3)
    spot[20:44, 24:50] = 200
    png16(root / "test/spot/0.png", spot)
    mask = np.zeros((70, 80), np.uint8)
    mask[20:44, 24:50] = 255
    (root / "ground_truth/spot").mkdir(parents=True)
    Image.fromarray(mask).save(root / "ground_truth/spot/0_mask.png")
    config = write_config(base / "tiny.py", base / "data", ["disc"])
    argv = ["main", f"--config={config}", f"--workdir={base / 'run'}", *OPTIONS]
    assert main(argv) == 0
    return base


def predict(base, workdir, image):
    config = f"--config={base / 'tiny.py'}"
    argv = ["main", config, f"--workdir={workdir}", "--mode=predict", *OPTIONS]
    argv.append("--config.predict.overwrite=True")
    assert main([*argv, f"--config.predict.input={image}"]) == 0
    (row,) = json.loads((workdir / "results/predict/disc/scores.json").read_text())
    assert 0.02 < row["score"] < 0.98  # a map that says nothing would agree with all
    return row["score"]


def test_the_range_is_the_models_own(deep_run, tmp_path):
    """A run, its predictions, its export and its detector judge by one range, that of training."""
    run = deep_run / "run"
    depth = json.loads((run / "disc/depth.json").read_text())["depth"]
    low, high = map(float, depth.split(","))
    values = [camera((70, 80), index) for index in range(5)]
    assert (low, high) == pytest.approx(np.quantile(values, (0.001, 0.999)), rel=0.01)

    detector = Detector.load(run / "disc")
    assert detector.description.depth == depth
    pixels = np.dstack([camera((70, 80), 7)] * 3)
    eight = expected(pixels, low, high).astype(np.uint8)
    of_eight, of_sixteen = (detector(x[None]).score for x in (eight, pixels))
    np.testing.assert_allclose(of_sixteen, of_eight, atol=SAME)
    assert abs(float((detector((pixels // 2)[None]).score - of_sixteen)[0])) > OTHER
    assert predict(deep_run, run, png16(tmp_path / "a.png", pixels)) == pytest.approx(
        float(of_sixteen[0]), abs=SAME
    )
    pixels[0, 0] = 65535
    assert predict(deep_run, run, png16(tmp_path / "b.png", pixels)) == pytest.approx(
        float(detector(pixels[None]).score[0]), abs=SAME
    )

    from conversion.to_torch import main as to_torch

    exported = tmp_path / "out.pt"
    assert to_torch([str(run / "disc"), str(exported)]) == 0
    assert Detector.load(exported).description.depth == depth


def test_a_run_of_before_reads_files_by_their_own_range(deep_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(deep_run / "run", run)
    (run / "disc/depth.json").unlink()
    stored = json.loads((run / "config.json").read_text())
    del stored["data"]["depth"]
    (run / "config.json").write_text(json.dumps(stored))
    assert Detector.load(run / "disc").description.depth == "file"
    pixels = np.dstack([camera((70, 80), 7)] * 3)
    pixels[5, 5] = 65535  # makes all else dark where the file's own range counts
    image = png16(tmp_path / "a.png", pixels)
    Image.fromarray(read_image(image, None, "file")).save(tmp_path / "own.png")
    of_file = predict(deep_run, run, image)
    assert of_file == pytest.approx(predict(deep_run, run, tmp_path / "own.png"), abs=SAME)
    assert abs(of_file - predict(deep_run, deep_run / "run", image)) > OTHER
    (run / "disc/depth.json").write_text('{"depth": "wide"}')
    config = f"--config={deep_run / 'tiny.py'}"
    argv = ["main", config, f"--workdir={run}", "--mode=predict", *OPTIONS]
    capsys.readouterr()
    assert main([*argv, f"--config.predict.input={image}", "--config.predict.overwrite=True"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {run / 'disc/depth.json'}: not a depth")


def test_images_unlike_those_trained_on_are_named_before_prediction(
    deep_run, finished_run, tmp_path, capsys
):
    wide = png16(tmp_path / "in/wide.png", np.dstack([camera((70, 80), 3)] * 3))
    narrow = tmp_path / "in/narrow.png"
    Image.fromarray(np.full((70, 80, 3), 100, np.uint8)).save(narrow)
    (tmp_path / "in/broken.png").write_text("no image")
    for workdir, unlike in ((deep_run / "run", narrow), (finished_run / "run", wide)):
        argv = ["main", f"--workdir={workdir}", "--mode=predict", "--config.data.on_error=skip"]
        argv += ["--config.predict.overwrite=True", "--config.data.categories=disc"]
        argv.append(f"--config.predict.input={tmp_path / 'in'}")
        capsys.readouterr()
        assert main(argv) == 0
        errors = capsys.readouterr().err
        (line,) = [x for x in errors.splitlines() if x.startswith("warning: ") and "bits" in x]
        assert line.startswith(f"warning: 1 of 3 images, such as {unlike}, have ")
        assert errors.index(line) < errors.index("predict disc")


def test_the_check_names_the_kinds_of_pixels_and_their_mixture(deep_run, tmp_path, capsys):
    config = write_config(tmp_path / "tiny.py", tmp_path / "data", ["disc"])
    shutil.copytree(deep_run / "data", tmp_path / "data")
    assert check_data.main(["check", f"--config={config}"]) == 0
    printed = capsys.readouterr().out
    assert "RGB;16B" in printed and "no problem found" in printed
    Image.new("RGB", (80, 70)).save(tmp_path / "data/disc/test/good/8.png")
    assert check_data.main(["check", f"--config={config}"]) == 0
    assert "warning: depth: disc: 11 images of more than eight" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["often", "5,1", "1", "0,inf", "1,2,3", ""])
def test_a_depth_that_is_none_is_refused(deep_run, capsys, value):
    config = f"--config={deep_run / 'tiny.py'}"
    assert main(["main", config, f"--config.data.depth={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --config.data.depth={value}: must be train, dtype, file or LOW")
