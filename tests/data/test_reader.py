"""Files become squares, the bad ones are left out or named; every kind of file and path is read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stlm_jax.data.geometry import Box, content_box
from stlm_jax.data.images import ImageError, read_image
from stlm_jax.data.reader import ImageReader, readable


def colours(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(pixels, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_squashing_is_pils_resize(tmp_path):
    view = ImageReader(16).view(save(colours(), tmp_path / "a.png"))
    expected = Image.fromarray(colours()).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(view.pixels, expected)
    assert view.box == Box(0, 0, 16, 16) and view.pixels.flags.writeable


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((20, 40), Box(0, 8, 32, 24)),
        ((40, 20), Box(8, 0, 24, 32)),
        ((40, 40), Box(0, 0, 32, 32)),
        ((1, 3000), Box(0, 15, 32, 16)),
        ((31, 32), Box(0, 0, 32, 31)),
    ],
)
def test_padding_keeps_the_shape_and_fills_with_114(tmp_path, shape, box):
    view = ImageReader(32, "pad").view(save(colours(*shape), tmp_path / "a.png"))
    assert view.box == box and view.pixels.shape == (32, 32, 3)
    inner = Image.fromarray(colours(*shape)).resize(
        (box.right - box.left, box.bottom - box.top), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(box.of(view.pixels), inner)
    outside = np.ones((32, 32), bool)
    box.of(outside)[...] = False
    assert (view.pixels[outside] == 114).all()


def test_nothing_is_lost_by_rounding():
    for width in range(1, 70):
        box = content_box((width, 64), 64, "pad")
        assert 0 <= box.left < box.right <= 64 and 0 <= box.top < box.bottom <= 64
        assert max(box.shape) == 64


def test_views_come_in_order(tmp_path):
    paths = [save(np.full((4, 4, 3), i, np.uint8), tmp_path / f"{i}.png") for i in range(40)]
    found = list(ImageReader(8).views(paths))
    assert [index for index, _ in found] == list(range(40))
    assert [view.pixels[0, 0, 0] for _, view in found] == list(range(40))


@pytest.fixture
def some_bad(tmp_path):
    paths = [save(colours(), tmp_path / f"{i}.png") for i in range(6)]
    paths[1].write_bytes(b"")
    paths[4].write_bytes(paths[3].read_bytes()[:200])
    return paths


def test_the_first_bad_file_is_named(some_bad):
    with pytest.raises(ImageError, match=r"cannot read .*1\.png"):
        list(ImageReader(8).views(some_bad))


def test_skipping_names_every_bad_file_and_counts(some_bad, capsys):
    found = list(ImageReader(8, skip=True).views(some_bad))
    assert [index for index, _ in found] == [0, 2, 3, 5]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("left out: cannot read ") and "1.png" in lines[0]
    assert "4.png" in lines[1]
    assert lines[2] == "2 of 6 images were left out, for they cannot be read"


def test_no_more_is_read_ahead_than_asked_for(some_bad):
    seen = []
    reading = readable(some_bad, seen.append, skip=False, ahead=0)
    next(reading)
    assert seen == some_bad[:1]


FORMATS = {
    "a.png": {},
    "interlaced.png": {},
    "a.jpg": {"quality": 100, "subsampling": 0},
    "progressive.jpeg": {"quality": 100, "subsampling": 0, "progressive": True},
    "A.JPG": {"quality": 100, "subsampling": 0},
    "a.bmp": {},
    "a.tif": {},
    "lzw.tiff": {"compression": "tiff_lzw"},
    "deflate.TIFF": {"compression": "tiff_adobe_deflate"},
    "a.webp": {"lossless": True},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(tmp_path, name):
    smooth = np.asarray(Image.fromarray(colours(3, 4)).resize((40, 30), Image.Resampling.BICUBIC))
    path = save(smooth, tmp_path / name, **FORMATS[name])
    if name.startswith("interlaced"):
        path.write_bytes(adam7(smooth))
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    np.testing.assert_allclose(read_image(path, None), smooth, atol=3 if lossy else 0)


def adam7(pixels):
    """An interlaced PNG, which PIL does not write."""
    height, width = pixels.shape[:2]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2)]  # first column and row, steps of columns and rows  # fmt: skip
    lines = b""
    for x, y, dx, dy in passes:
        part = pixels[y::dy, x::dx]
        lines += b"".join(b"\0" + line.tobytes() for line in part) if part.size else b""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", ["ein Bild.png", "écrou ü.png", "画像/図 1.png", "a%20b#c?.png"])
def test_any_name_is_read_and_named_in_errors(tmp_path, name):
    path = save(colours(), tmp_path / name)
    np.testing.assert_array_equal(read_image(path, None), colours())
    np.testing.assert_array_equal(read_image(str(path), None), colours())
    path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(path, None)
    assert str(path) in str(caught.value)


def test_links_are_followed_and_a_broken_one_is_named(tmp_path):
    target = save(colours(), tmp_path / "target.png")
    link = tmp_path / "link.png"
    link.symlink_to(target)
    np.testing.assert_array_equal(read_image(link, None), colours())
    target.unlink()
    with pytest.raises(ImageError, match=r"link\.png does not exist"):
        read_image(link, None)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(ImageError, match=r"link\.png"):
        read_image(link, None)


@pytest.mark.filterwarnings("ignore")
def test_pils_limit_is_kept_and_explained(tmp_path, monkeypatch):
    path = save(colours(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # 600 pixels; twice 400 are refused
    assert ImageReader(8).view(path).pixels.shape == (8, 8, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    with pytest.raises(ImageError) as caught:
        read_image(path, None)
    text = str(caught.value)
    assert "a.png" in text and "600 pixels" in text and "598 pixels" in text
    assert "decompression bomb" in text and "\n" not in text
